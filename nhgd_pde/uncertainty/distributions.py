"""Distributions of one random number.

Each is a function of a *standard variable* z, which is N(0, 1) or U(-1, 1). Samples and quadratures consist of standard
variables.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial.hermite_e import hermevander
from numpy.polynomial.legendre import legvander
from scipy.special import ndtri, roots_hermitenorm, roots_legendre


class Distribution(Hashable, Protocol):
    """A random number as a function of a standard variable."""

    def at(self, z: np.ndarray) -> np.ndarray:
        """The values of standard variables, of any shape."""
        ...

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """The standard variables that are not exceeded with the probabilities p in (0, 1)."""
        ...

    def gauss(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The Gauss rule in the standard variable, which is exact for polynomials of degree 2 count - 1.

        Returns:
            Nodes (count,), ascending and exactly symmetric about zero, and weights (count,), whose sum is one.
        """
        ...

    def polynomials(self, z: np.ndarray, degree: int) -> np.ndarray:
        """(degree + 1, S) orthonormal polynomials of standard variables (S,): the constant 1 is first."""
        ...


@dataclass(frozen=True)
class Normal:
    """mean + std z with z ~ N(0, 1).

    Raises:
        ValueError: `std` is not positive, or a number is not finite.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ValueError(f"expected a finite mean and a positive std, found mean {self.mean}, std {self.std}")

    def at(self, z: np.ndarray) -> np.ndarray:
        return self.mean + self.std * z

    def quantile(self, p: np.ndarray) -> np.ndarray:
        return np.asarray(ndtri(p))

    def gauss(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return _rule(*roots_hermitenorm(count))

    def polynomials(self, z: np.ndarray, degree: int) -> np.ndarray:
        norms = np.sqrt([float(math.factorial(k)) for k in range(degree + 1)])
        return np.asarray((hermevander(z, degree) / norms).T)


@dataclass(frozen=True)
class Uniform:
    """low + (high - low) (z + 1) / 2 with z ~ U(-1, 1).

    Raises:
        ValueError: `low` is not below `high`, or one of them is not finite.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"expected finite bounds with low < high, found low {self.low}, high {self.high}")

    def at(self, z: np.ndarray) -> np.ndarray:
        return self.low + 0.5 * (self.high - self.low) * (z + 1.0)

    def quantile(self, p: np.ndarray) -> np.ndarray:
        return 2.0 * np.asarray(p) - 1.0

    def gauss(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return _rule(*roots_legendre(count))

    def polynomials(self, z: np.ndarray, degree: int) -> np.ndarray:
        return np.asarray((legvander(z, degree) * np.sqrt(2.0 * np.arange(degree + 1) + 1.0)).T)


def _rule(nodes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rule made exactly symmetric, so that the middle node of an odd rule is exactly zero."""
    nodes, weights = 0.5 * (nodes - nodes[::-1]), 0.5 * (weights + weights[::-1])
    return nodes, weights / weights.sum()
