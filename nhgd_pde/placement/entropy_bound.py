"""A second bound of the information gain of every set of k sensors, closer than that by weights if k is small.

With the covariance C = I + K H_0^-1 K^T of all measured values over their noise, the gain of a set is 1/2 log det C_SS,
so that the best set is that of maximum entropy. For x = 1 in a set and 0 elsewhere, and any factor g > 0,

    log det C_SS = 1/2 (log det (g C diag(x) C + diag(1 - x)) - |S| log g),

which is concave in x between 0 and 1 (Anstreicher 2020, Oper. Res. 68, 3-15). Its tangent planes bound it from above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import LinearConstraint, minimize, minimize_scalar

from .information import SensorInformation

# Candidates up to which the bound is computed: the time grows with the third power of their number.
MOST = 200
# Rounds, each with the best x for a factor and the best factor for an x, and how far its logarithm moves in a round.
_ROUNDS, _RANGE = 4, 4.0
# x keeps this distance from 0 and 1, where the matrix may be singular.
_INSIDE = 1e-9


@dataclass(frozen=True, eq=False)
class EntropyBound:
    """The concave function of x (m,) for sets of `count` candidates.

    Attributes:
        covariance: C (m b, m b).
        values: b, the numbers that a candidate measures.
        count: k.
    """

    covariance: np.ndarray
    values: int
    count: int

    @classmethod
    def of(cls, information: SensorInformation, count: int) -> EntropyBound:
        rows = information.rows.reshape(-1, information.rows.shape[2])
        own = torch.eye(len(rows)).to(rows) + rows @ torch.linalg.solve(information.base, rows.T)
        return cls((0.5 * (own + own.T)).cpu().numpy(), information.rows.shape[1], count)

    def value(self, x: np.ndarray, log_factor: float) -> tuple[float, np.ndarray]:
        """The function and its gradient (m,)."""
        c, shares, factor = self.covariance, np.repeat(x, self.values), math.exp(log_factor)
        matrix = factor * (c * shares) @ c + np.diag(1.0 - shares)
        root = np.linalg.cholesky(matrix)
        inverse = np.linalg.inv(matrix)
        value = 0.25 * (2.0 * float(np.log(np.diag(root)).sum()) - self.count * self.values * log_factor)
        slopes = 0.25 * (factor * np.einsum("ij,ji->i", c @ inverse, c) - np.diag(inverse))
        return value, slopes.reshape(-1, self.values).sum(axis=1)

    def bound(self, x: np.ndarray, log_factor: float) -> float:
        """The largest value of the tangent plane at x on all sets."""
        value, slopes = self.value(x, log_factor)
        return value + float(np.sort(slopes)[-self.count :].sum() - slopes @ x)

    def least(self) -> float:
        """The least bound that a few rounds find."""
        size = len(self.covariance) // self.values
        x, log_factor = np.full(size, self.count / size), -2.0 * math.log(np.diag(self.covariance).mean())
        best = self.bound(x, log_factor)
        for _ in range(_ROUNDS):
            x = self._maximiser(x, log_factor)
            best = min(best, self.bound(x, log_factor))
            limits = log_factor - _RANGE, log_factor + _RANGE
            log_factor = float(minimize_scalar(lambda t: self.value(x, t)[0], bounds=limits, method="bounded").x)  # noqa: B023
        return best

    def _maximiser(self, x: np.ndarray, log_factor: float) -> np.ndarray:
        def falling(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, slopes = self.value(x, log_factor)
            return -value, -slopes

        found = minimize(
            falling,
            x,
            jac=True,
            method="SLSQP",
            bounds=[(_INSIDE, 1.0 - _INSIDE)] * len(x),
            constraints=LinearConstraint(np.ones((1, len(x))), self.count, self.count),
            options={"maxiter": 100, "ftol": 1e-9},
        )
        return np.asarray(np.clip(found.x, _INSIDE, 1.0 - _INSIDE))


def entropy_bound(information: SensorInformation, count: int | None) -> float:
    """The bound of criterion D of all sets of `count` candidates; infinite where it is not computed."""
    if information.criterion != "D" or count is None or count >= information.count:
        return math.inf
    if information.rows.shape[0] * information.rows.shape[1] > MOST:
        return math.inf
    try:
        found = EntropyBound.of(information, count).least()
    except np.linalg.LinAlgError:
        # A matrix that is singular to rounding has no logarithm of its determinant.
        return math.inf
    return found if math.isfinite(found) else math.inf
