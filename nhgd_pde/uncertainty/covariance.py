"""Covariance functions of stationary, isotropic random fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import gammaln, kve

# Largest smoothness. Above it the Bessel function overflows at relevant distances, and the covariance is nearly
# Gaussian.
_SMOOTHEST = 50.0


class Covariance(Protocol):
    """A symmetric positive definite function of two points."""

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(a, b) the covariances of the points x (dim, a) and y (dim, b)."""
        ...

    def variance(self, x: np.ndarray) -> np.ndarray:
        """(a,) the variances at the points x (dim, a)."""
        ...


@dataclass(frozen=True)
class Matern:
    """std^2 2^(1 - nu) / Gamma(nu) s^nu K_nu(s) with s = sqrt(2 nu) r / length and nu the smoothness.

    With nu = 1/2 it is std^2 exp(-r / length). Samples have fewer than nu derivatives. The formula is (4.14) in
    Rasmussen and Williams, Gaussian Processes for Machine Learning. Where nu is not 1/2, 3/2 or 5/2, a value takes
    about ten times as long.

    Raises:
        ValueError: a number is not positive, or the smoothness is above 50.
    """

    std: float
    length: float
    smoothness: float = 1.5

    def __post_init__(self) -> None:
        _positive(std=self.std, length=self.length, smoothness=self.smoothness)
        if self.smoothness > _SMOOTHEST:
            raise ValueError(
                f"expected a smoothness of at most {_SMOOTHEST:g}, found {self.smoothness}: take a Gaussian covariance"
            )

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        s = _distances(x, y)
        s *= math.sqrt(2.0 * self.smoothness) / self.length
        return self.std**2 * _matern(s, self.smoothness)

    def variance(self, x: np.ndarray) -> np.ndarray:
        return np.full(x.shape[1], self.std**2)


@dataclass(frozen=True)
class Gaussian:
    """std^2 exp(-r^2 / (2 length^2)).

    Raises:
        ValueError: a number is not positive.
    """

    std: float
    length: float

    def __post_init__(self) -> None:
        _positive(std=self.std, length=self.length)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        r = _distances(x, y)
        return self.std**2 * np.exp(-0.5 * (r / self.length) ** 2)

    def variance(self, x: np.ndarray) -> np.ndarray:
        return np.full(x.shape[1], self.std**2)


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} of a covariance: expected a positive number, found {value}")
        # The variance is a square, and distances are squared in units of the length.
        if not 0.0 < value * value < math.inf:
            raise ValueError(f"{name} of a covariance: expected a number whose square is finite, found {value}")


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Distances are computed from differences: |x|^2 + |y|^2 - 2 x.y loses half of the digits of small distances, so
    # that covariances would not be positive definite. The import takes long, and most solves do without it.
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)))


def _matern(s: np.ndarray, nu: float) -> np.ndarray:
    """2^(1 - nu) / Gamma(nu) s^nu K_nu(s)."""
    if nu == 0.5:
        return np.exp(-s)
    if nu == 1.5:
        return (1.0 + s) * np.exp(-s)
    if nu == 2.5:
        return (1.0 + s * (1.0 + s / 3.0)) * np.exp(-s)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        logarithm = (1.0 - nu) * math.log(2.0) - gammaln(nu) + nu * np.log(s) + np.log(kve(nu, s)) - s
        value = np.exp(logarithm)
    # The Bessel function overflows at zero and where s is small compared with nu. There the value is a series, of which
    # these are the first terms.
    small = ~np.isfinite(value)
    if small.any():
        t = 0.25 * s[small] ** 2
        value[small] = 1.0 if nu <= 2 else 1.0 - t / (nu - 1.0) * (1.0 - 0.5 * t / (nu - 2.0))
    return value
