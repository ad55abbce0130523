"""The inner solver of neural states: the method of Levenberg and Marquardt with geodesic acceleration.

    min_theta |R(u(theta), v)|^2_{K^-1} / 2,   (F + mu I) delta = -B^T K^-1 R,
    (F + mu I) a = -B^T K^-1 R'',   theta <- theta + delta + a / 2

with R'' the second derivative of R in the direction delta. delta is a damped step of natural gradient descent: F is the
Fisher information, see `tangent`. The second term follows the curve along which R falls, where steps without it would
be short (Transtrum and Sethna 2012, arXiv 1201.5885). The damping mu follows the ratio of the reduction found to the
reduction of the linear model (Nielsen 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from ..linalg.safe_lengths import dot
from ..pde_problem import PDEProblem
from .ansatz import Ansatz
from .tangent import ROUNDING, Tangent

# The first damping, relative to the largest eigenvalue of F, and the largest one, with which no step leads anywhere.
_FIRST, _LARGEST = 1e-3, 1e8
# The second term of a step is at most this long relative to the first one (Transtrum and Sethna).
_ACCELERATION = 0.75
# The share of the step over which the second derivative is a difference.
_DIFFERENCE = 0.1
# The largest factor by which one step reduces the damping.
_REDUCTION = 0.1
# Steps end where this many of them have not halved the norm of the residual.
_PATIENCE = 25


@dataclass(frozen=True)
class Fit:
    """A point of the iteration.

    Attributes:
        theta: (d,) parameters.
        u: (1, n) the state.
        residual: (1, n) R.
        loss: |R|^2_{K^-1} / 2.
        damping: mu; None before the first step.
        growth: the factor by which the next failure increases the damping.
        steps: number of steps so far.
    """

    theta: Tensor
    u: Tensor
    residual: Tensor
    loss: float
    damping: float | None = None
    growth: float = 2.0
    steps: int = 0


@dataclass(frozen=True)
class LevenbergMarquardt:
    """The iteration for one equation and one control.

    Attributes:
        problem: R and K.
        ansatz: the network.
        v: (p,) the outer variables.
    """

    problem: PDEProblem
    ansatz: Ansatz
    v: Tensor

    def at(self, theta: Tensor) -> Fit:
        u = self.ansatz.state(theta)
        residual = self.problem.residual(u, self.v)
        return Fit(theta, u, residual, 0.5 * dot(residual, self.problem.inner_metric.gradient(residual)))

    def solved(self, theta: Tensor, tolerance: float, most: int, damping: float | None = None) -> Fit:
        """The last of at most so many steps from theta: where the relative residual is within the tolerance, or where
        steps no longer reduce it.

        Args:
            damping: the last mu at a point nearby.
        """
        fit = replace(self.at(theta), damping=damping)
        losses = [fit.loss]
        while fit.steps < most and math.isfinite(fit.loss) and not self._error(fit, tolerance) <= tolerance:
            after = self._step(fit)
            if after is None:
                break
            fit = after
            losses.append(fit.loss)
            if len(losses) > _PATIENCE and fit.loss > 0.25 * losses[-1 - _PATIENCE]:
                break
        return fit

    def _error(self, fit: Fit, tolerance: float) -> float:
        return self.problem.residual_error(fit.residual, fit.u, self.v, tolerance)

    def _step(self, fit: Fit) -> Fit | None:
        """The next point, with a smaller loss; None where there is none."""
        tangent = Tangent.at(self.problem, self.ansatz, fit.theta, self.v)
        slope, largest = tangent.gradient(fit.residual), tangent.largest
        # Eigenvalues below the least damping are rounding errors. F may have another size than where mu was found.
        damping = min(max(fit.damping or _FIRST * largest, ROUNDING * largest), _LARGEST * largest)
        growth = fit.growth
        while math.isfinite(damping) and damping <= _LARGEST * largest:
            step = -tangent.solve(slope, damping)
            trial = self._trial(fit, tangent, step, damping)
            # The reduction of the linear model with the damping.
            expected = 0.5 * (damping * dot(step, step) - dot(step, slope))
            if trial is not None and trial.loss < fit.loss:
                quality = (fit.loss - trial.loss) / expected
                factor = max(_REDUCTION, 1.0 - (2.0 * quality - 1.0) ** 3)
                return replace(trial, damping=damping * factor, steps=fit.steps + 1)
            damping, growth = damping * growth, 2.0 * growth
        return None

    def _trial(self, fit: Fit, tangent: Tangent, step: Tensor, damping: float) -> Fit | None:
        """The point after a step with its acceleration; None where the step is too long for that."""
        near = self.problem.residual(self.ansatz.state(fit.theta + _DIFFERENCE * step), self.v)
        second = 2.0 / _DIFFERENCE * ((near - fit.residual) / _DIFFERENCE - (step @ tangent.images)[None])
        acceleration = -tangent.solve(tangent.gradient(second), damping)
        if not float(acceleration.norm()) <= _ACCELERATION * float(step.norm()):
            return None
        return self.at(fit.theta + step + 0.5 * acceleration)
