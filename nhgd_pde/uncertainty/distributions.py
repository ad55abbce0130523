"""Distributions of one random number.

Each is the image of a *standard variable* z, N(0, 1) or U(-1, 1), which is what samples and quadratures are made of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial.hermite_e import hermevander
from numpy.polynomial.legendre import legvander
from scipy.special import ndtri, roots_hermitenorm, roots_legendre


class Distribution(Protocol):
    """A random number as a function of a standard variable."""

    def at(self, z: np.ndarray) -> np.ndarray:
        """The values of standard variables, of any shape."""
        ...

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """The standard variables below which the probabilities p, in (0, 1), lie."""
        ...

    def gauss(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Gauss rule in the standard variable, exact for polynomials of degree 2 count - 1.

        Returns:
            Nodes (count,), ascending and symmetric about an exact zero, and weights (count,), of sum one.
        """
        ...

    def polynomials(self, z: np.ndarray, degree: int) -> np.ndarray:
        """(degree + 1, S) orthonormal polynomials in standard variables (S,): 1, then those of expectation zero."""
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
    """The rule without rounding errors in its symmetry, so that the middle of an odd one is zero exactly."""
    nodes, weights = 0.5 * (nodes - nodes[::-1]), 0.5 * (weights + weights[::-1])
    return nodes, weights / weights.sum()
