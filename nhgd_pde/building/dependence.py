"""How coefficients follow from the parameters that expressions name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pde.form import Coefficients, ControlMap
from ..problem_file.expressions import Expression

# The place of the coefficients in the integral over the cells. A place is one of these names or a key of the file.
CELLS = "cells"
# The place of the coefficients in the integral with the time derivative.
INERTIA = "inertia"
# The place of given coefficients of the state: Dirichlet and initial values.
GIVEN = "given values"

# A function of parameters and random inputs by name, each (rows, P) or broadcasting against it, and of the coefficient
# without parameters; it returns the coefficient.
Follow = Callable[[Mapping[str, Tensor], Tensor], Tensor]
# A function of parameters and random inputs by name, and of the coefficients so far; it returns a coefficient.
Rule = Callable[[Mapping[str, Tensor], Coefficients], Tensor]


@dataclass
class Dependence:
    """The coefficients that depend on parameters, by place and name; grows while a problem is built.

    Attributes:
        rules: place -> coefficient -> its rule; coefficients that need others stand after these.
        names: place -> the parameters and the random inputs that these coefficients use.
        exposed: parameters that functions of users find by their own names among the coefficients of the cells.
    """

    rules: dict[str, dict[str, Rule]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    exposed: set[str] = field(default_factory=set)

    def add(self, place: str, coefficient: str, rule: Rule, names: Collection[str]) -> None:
        self.rules.setdefault(place, {})[coefficient] = rule
        self.use(place, names)

    def use(self, place: str, names: Collection[str]) -> None:
        self.names.setdefault(place, set()).update(names)

    def copy(self) -> Dependence:
        """A copy that can be changed while this object stays as it is."""
        rules = {place: dict(each) for place, each in self.rules.items()}
        return Dependence(rules, {place: set(each) for place, each in self.names.items()}, set(self.exposed))

    def at(self, place: str) -> dict[str, Rule]:
        return self.rules.get(place, {})

    def names_at(self, place: str) -> set[str]:
        return self.names.get(place, set())

    @property
    def used(self) -> set[str]:
        return set().union(*self.names.values())


class Recorded(dict[str, Tensor]):
    """Coefficients of an integral, with a record of those that a function has asked for."""

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        super().__init__(given)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


@dataclass(frozen=True)
class Traced:
    """Values of a part of the file, and how they follow from parameters.

    Attributes:
        values: at the starting values of the parameters.
        follow: computes the values from parameters; None where no parameter changes them.
        names: parameters and random inputs that `follow` uses.
    """

    values: np.ndarray
    follow: Follow | None = None
    names: frozenset[str] = frozenset()


def follower(expression: Expression, x: Tensor, times: Tensor | None, fixed: Mapping[str, Tensor]) -> Follow:
    """The follower of an expression at points x (dim, ...), and at times (T,) where it uses t: values (T, ...).

    `fixed` has the values (...) of data at the points.
    """
    moving = times is not None and "t" in expression.variables

    def follow(known: Mapping[str, Tensor], given: Tensor) -> Tensor:
        named = {**fixed, **{each: known[each] for each in known if each in expression.variables}}
        if not moving:
            return expression.torch(x, **named)
        assert times is not None
        t = times.reshape(-1, *[1] * (x.ndim - 1))
        return expression.torch(x[:, None].expand(-1, len(times), *x.shape[1:]), t=t, **named)

    return follow


def on_cells(parts: Sequence[tuple[Follow, Tensor]], shape: tuple[int, int]) -> Follow:
    """One follower from several, each for some of the cells (indices); shape is (cells, points of each cell)."""

    def spread(values: Tensor) -> Tensor:
        """(rows, cells, points) of (rows, P) or (P,); a number for all points stays one, (..., 1, 1)."""
        return values[..., None] if values.shape[-1] == 1 else values.reshape(-1, *shape)

    def follow(known: Mapping[str, Tensor], given: Tensor) -> Tensor:
        at = {name: spread(values) for name, values in known.items()}
        found = []
        for each, cells in parts:
            here = {name: values if values.shape[-2] == 1 else values[:, cells] for name, values in at.items()}
            found.append(each(here, given))
        whole = given.reshape(-1, *shape)
        rows = max(len(whole), *(len(values) for values in found if values.ndim > 2), 1)
        whole = whole.expand(rows, *shape).clone()
        for (_, cells), values in zip(parts, found, strict=True):
            whole[:, cells] = values
        return whole.reshape(rows, -1)

    return follow


def stacked(entries: Sequence[Follow | None], lead: tuple[int, ...]) -> Follow:
    """The follower of a vector or matrix (*lead, rows, P), from one per entry; None for an entry that is constant."""

    def follow(known: Mapping[str, Tensor], given: Tensor) -> Tensor:
        flat = given.reshape(-1, *given.shape[len(lead) :])
        found = [flat[i] if each is None else each(known, flat[i]) for i, each in enumerate(entries)]
        rows = [each if each.ndim > 1 else each[None] for each in found]
        whole = torch.stack(torch.broadcast_tensors(*rows))
        return whole.reshape(*lead, *whole.shape[1:])

    return follow


def parameter_coefficient(name: str) -> str:
    """The name of a parameter among the coefficients of an integral."""
    return f"parameter {name}"


def random_coefficient(name: str) -> str:
    """The name of a random input among the coefficients of an integral."""
    return f"random {name}"


def parameter_maps(
    acting: Sequence[str], rules: Mapping[str, Rule], names: Collection[str], exposed: Collection[str]
) -> tuple[ControlMap, ...]:
    """How the parameters that act in an integral enter its coefficients, one after the other.

    Args:
        acting: names of the parameters.
        rules: coefficient -> its rule.
        names: parameters and random inputs that the rules use.
        exposed: parameters that functions of users find under their own names too.
    """

    def enter(name: str, last: bool, coefficients: Coefficients, v: Tensor) -> Coefficients:
        after = {**coefficients, parameter_coefficient(name): v}
        if name in exposed:
            after[name] = v
        if not last:
            return after
        known = {
            each: after[key]
            for each in names
            for key in (parameter_coefficient(each), random_coefficient(each))
            if key in after
        }
        for each, rule in rules.items():
            after[each] = rule(known, after)
        return after

    def one(name: str, last: bool) -> ControlMap:
        return lambda coefficients, v: enter(name, last, coefficients, v)

    return tuple(one(name, name == acting[-1]) for name in acting)
