"""The random inputs of a problem by name, as functions of one vector of standard variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from .distributions import Distribution, Normal
from .karhunen_loeve import KarhunenLoeve


class RandomInput(Protocol):
    """A random number or field."""

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """The distributions of its standard variables."""
        ...

    def on(self, points: np.ndarray) -> InputOnPoints:
        """The input at points (dim, P)."""
        ...


class InputOnPoints(Protocol):
    """A random number or field at some points."""

    def at(self, z: np.ndarray) -> np.ndarray:
        """The values (S, 1) or (S, P) for standard variables (S, m)."""
        ...


@dataclass(frozen=True)
class Scalar:
    """A random number, the same everywhere."""

    distribution: Distribution

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        return (self.distribution,)

    def on(self, points: np.ndarray) -> Scalar:
        return self

    def at(self, z: np.ndarray) -> np.ndarray:
        return self.distribution.at(z)


@dataclass(frozen=True)
class Field:
    """A Gaussian random field of zero mean."""

    expansion: KarhunenLoeve

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        return (Normal(),) * self.expansion.modes

    def on(self, points: np.ndarray) -> FieldOnPoints:
        return FieldOnPoints(self.expansion.at(points))


@dataclass(frozen=True, eq=False)
class FieldOnPoints:
    """A field at some points.

    Attributes:
        modes: (m, P) sqrt(lambda_k) phi_k, which are also the derivatives by the standard variables.
    """

    modes: np.ndarray

    def at(self, z: np.ndarray) -> np.ndarray:
        return np.asarray(z @ self.modes)


@dataclass(frozen=True)
class RandomInputs:
    """Independent random inputs, in the order of the mapping.

    Attributes:
        inputs: name -> `Scalar` or `Field`.

    Raises:
        ValueError: there is none.
    """

    inputs: Mapping[str, RandomInput]

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("expected at least one random input, found none")

    @property
    def dimension(self) -> int:
        """m, the number of standard variables."""
        return len(self.distributions)

    @cached_property
    def distributions(self) -> tuple[Distribution, ...]:
        """The distributions of all standard variables."""
        return tuple(one for part in self.inputs.values() for one in part.distributions)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The range of the standard variables of each input."""
        found, first = {}, 0
        for name, part in self.inputs.items():
            found[name] = slice(first, first + len(part.distributions))
            first = found[name].stop
        return found

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """(S, m) the standard variables that are not exceeded with the probabilities p (S, m)."""
        self._check(p)
        return np.stack([one.quantile(p[:, k]) for k, one in enumerate(self.distributions)], axis=1)

    def columns(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> (S,) values in scenarios z (S, m); `k[1]`, `k[2]`, ... are the coefficients of a random field k."""
        self._check(z)
        found: dict[str, np.ndarray] = {}
        for name, where in self.slices.items():
            part, own = self.inputs[name], z[:, where]
            if isinstance(part, Scalar):
                found[name] = part.at(own)[:, 0]
            else:
                found.update({f"{name}[{k + 1}]": own[:, k] for k in range(own.shape[1])})
        return found

    def on(self, points: np.ndarray) -> InputsOnPoints:
        """The inputs at points (dim, P); the modes of fields are evaluated once for all scenarios."""
        return InputsOnPoints(self, {name: part.on(points) for name, part in self.inputs.items()})

    def _check(self, z: np.ndarray) -> None:
        if z.ndim != 2 or z.shape[1] != self.dimension:
            raise ValueError(
                f"expected scenarios of {self.dimension} variables, (S, {self.dimension}), found {z.shape}"
            )


@dataclass(frozen=True, eq=False)
class InputsOnPoints:
    """Random inputs at some points.

    Attributes:
        inputs: the random inputs.
        parts: name -> the input at the points.
    """

    inputs: RandomInputs
    parts: Mapping[str, InputOnPoints]

    def at(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> (S, 1) or (S, P) values of scenarios z (S, m)."""
        self.inputs._check(z)
        return {name: self.parts[name].at(z[:, where]) for name, where in self.inputs.slices.items()}
