"""Values of random inputs at points, in the scenarios that a problem is built for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..problem_file.expressions import Expression
from ..uncertainty.inputs import InputOnPoints, RandomInputs, Scalar


@dataclass(eq=False)
class Place:
    """Points at which expressions have been evaluated, and values there that are the same in all scenarios.

    Attributes:
        points: (dim, P).
        inputs: the random inputs that have been asked for, prepared for the points.
        known: values of expressions without random inputs, by their key.
    """

    points: np.ndarray
    inputs: dict[str, InputOnPoints] = field(default_factory=dict)
    known: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RandomValues:
    """The random inputs in some scenarios.

    Attributes:
        inputs: the random inputs by name.
        z: (S, m) standard variables.
        numbers: (S,) the numbers of the scenarios in messages; None for the nominal problem, where all z are zero.
        squeezed: the values of the one scenario have no axis of scenarios; true for the nominal problem and for
            evolutions, whose rows are times.
        places: the points so far; all scenarios of a problem share this list.
    """

    inputs: RandomInputs
    z: np.ndarray
    numbers: np.ndarray | None = None
    squeezed: bool = False
    places: list[Place] = field(default_factory=list)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.inputs.inputs)

    @property
    def rows(self) -> int | None:
        """The length of the axis of the scenarios; None without such an axis."""
        return None if self.squeezed else len(self.z)

    def place(self, points: np.ndarray) -> Place:
        """The entry of some points (dim, ...) in the list of places."""
        for known in self.places:
            if same_place(known.points, points):
                return known
        self.places.append(Place(points))
        return self.places[-1]

    def at(self, names: Iterable[str], points: np.ndarray) -> dict[str, Tensor]:
        """Name -> values at points (dim, ...): (S, ...), or (...) where squeezed; ones in place of ... for numbers."""
        shape = points.shape[1:]
        found = {}
        for name in names:
            part = self.inputs.inputs[name]
            one: InputOnPoints
            if isinstance(part, Scalar):
                one = part
            else:
                here = self.place(points)
                if name not in here.inputs:
                    here.inputs[name] = part.on(points.reshape(len(points), -1))
                one = here.inputs[name]
            values = torch.from_numpy(np.ascontiguousarray(one.at(self.z[:, self.inputs.slices[name]])))
            own = shape if values.shape[1] > 1 else (1,) * len(shape)
            found[name] = values.reshape(own) if self.squeezed else values.reshape(-1, *own)
        return found

    @property
    def which(self) -> str:
        """A description of all scenarios, for the end of a sentence."""
        if self.numbers is None:
            return ""
        listed = ", ".join(str(number) for number in self.numbers[:4]) + ", ..." * (len(self.numbers) > 4)
        return f" in scenario {listed}" if len(self.numbers) == 1 else f" in some of the scenarios {listed}"

    def scenario(self, row: int) -> str:
        """A description of the scenario of a row, for the end of a sentence; empty for the nominal problem."""
        if self.numbers is None:
            return ""
        return f" in scenario {self.numbers[0 if self.squeezed else row]}"


def names_in(value: object) -> frozenset[str]:
    """The variables of all the expressions in a part of a problem file."""
    if isinstance(value, Expression):
        return value.variables
    fields = getattr(type(value), "model_fields", None)
    if fields is not None:
        value = {name: getattr(value, name) for name in fields}
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, Collection) and not isinstance(value, str):
        return frozenset().union(*(names_in(each) for each in value))
    return frozenset()


def host_tensor(values: np.ndarray) -> Tensor:
    """A tensor on the host that shares the memory of an array; a single number where all are one in memory."""
    if values.size > 1 and not any(values.strides):
        return torch.from_numpy(values[(slice(1),) * values.ndim].copy()).expand(values.shape)
    return torch.from_numpy(np.require(values, requirements=["W"]))


def host_tensors(named: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, with tensors in place of arrays."""
    return {name: torch.from_numpy(each) if isinstance(each, np.ndarray) else each for name, each in named.items()}


def same_place(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    mine, theirs = a.__array_interface__, b.__array_interface__
    # Points in the list are never written to, so the same memory means the same points.
    if mine["data"][0] == theirs["data"][0] and mine["strides"] == theirs["strides"]:
        return True
    return bool((a[..., -1:] == b[..., -1:]).all()) and np.array_equal(a, b)
