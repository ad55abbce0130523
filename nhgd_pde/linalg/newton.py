"""Newton's method for a root R(u) = 0: factors that are kept while they serve, steps that are damped.

With J_k = R' factorised at some point, which may be an earlier one, a step is

    d = J_k^-1 R(u),   u+ = u - length d,   d+ = J_k^-1 R(u+)

and is judged by the natural monotonicity test |d+| <= (1 - length / 4) |d| (Deuflhard 2011, Newton Methods for
Nonlinear Problems, Section 3.3). The test sees errors. Residuals would allow tiny steps only where convection
dominates. The correction d+ is not wasted: while the factors are kept it is the next step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .factorisation import SingularMatrixError
from .safe_lengths import length, quotient

Map = Callable[[Tensor], Tensor]

# Largest number of times that one step is shortened.
_MOST_TRIALS = 16
# New factors are made where a step with factors of an earlier point reduces the next step by less than this factor.
_POOR = 0.5
# A factorisation costs as much as about this number of steps with kept factors.
PATIENCE = 5
# Steps shorter than this share of the Newton step lead nowhere.
_SHORTEST = 1e-5
# Steps shorter than this share of u are rounding errors.
_ROUNDING = 1e-12
# Relative error from which on an iterate that no step improves is not a solution up to rounding errors.
_USELESS = 1e-6
# Error from which on the last of all steps has not come near a root of a nonlinear equation, relative to the lengths of
# the iterate and the start.
_LOST = 1.0
# Relative errors below this are rounding errors.
_LEAST = 1e-16


class RootProblem(Protocol):
    """R(u) = 0 with the lengths in which its errors are measured.

    `linear` says whether R is affine. `norm` is the length of a correction, and `length` is the length of u that errors
    are relative to. `surely_solved` is a test without a solve, given the length of u, and may overlook a solution.
    `error` is the relative error of u, given the Newton correction at u by the last factors; at or below the tolerance
    it may be a bound that is not sharp.
    """

    @property
    def linear(self) -> bool: ...
    def residual(self, u: Tensor) -> Tensor: ...
    def norm(self, d: Tensor) -> float: ...
    def length(self, u: Tensor) -> float: ...
    def surely_solved(self, residual: Tensor, length: float, tolerance: float) -> bool: ...
    def error(self, u: Tensor, residual: Tensor, correction: Callable[[], Tensor], tolerance: float) -> float: ...


class Directions(Protocol):
    """Newton directions from factors of J at one point.

    `direction` is J_k^-1 R(u) of the residual at u. `belongs` says whether the factors are those of u. `renewed` makes
    the factors of u, and raises a `SingularMatrixError` where there are none.
    """

    def direction(self, u: Tensor, residual: Tensor) -> Tensor: ...
    def belongs(self, u: Tensor) -> bool: ...
    def renewed(self, u: Tensor) -> Directions: ...


@dataclass(frozen=True)
class NewtonResult:
    """The result of Newton's method.

    Attributes:
        u: the last iterate.
        residual: R(u).
        error: the relative error of u.
        steps: number of steps.
        directions: Newton directions by the last factors.
        failed: no step brought u nearer to a root, and u is not one up to rounding errors; or all steps left an error
            as large as u and the start.
    """

    u: Tensor
    residual: Tensor
    error: float
    steps: int
    directions: Directions
    failed: bool = False


@dataclass(frozen=True)
class _Step:
    """A step to u that was accepted, a share `length` of the Newton step.

    `following` is the next step by the same factors, and `contraction` its length relative to that of this step.
    """

    u: Tensor
    residual: Tensor
    converged: bool
    length: float
    following: Tensor
    contraction: float = 0.0


@dataclass(frozen=True)
class Newton:
    """The method for one equation.

    Attributes:
        equation: R.
        tolerance: relative error to reach.
        steps: largest number of steps.
        patience: number of steps with kept factors that cost as much as a factorisation; with 0 every step has factors
            of its own point.
    """

    equation: RootProblem
    tolerance: float
    steps: int
    patience: int = PATIENCE

    def solve(self, start: Tensor, directions: Directions) -> NewtonResult:
        """A root of R.

        Factors are kept while they contract well enough, and renewed where a step with them fails, or would have too
        many followers. A candidate at which R is not finite is a step too long. `directions` belong to the first
        factors.

        Raises:
            SingularMatrixError: J is singular at the start, or where kept factors have led.
        """
        u, residual = start, self.equation.residual(start)
        if not torch.isfinite(residual).all():
            return self._stuck(u, residual, 0, directions)
        if not torch.count_nonzero(residual):
            return NewtonResult(u, residual, self._error(u, residual, directions), 0, directions)
        if self.equation.linear and not directions.belongs(u):
            directions = directions.renewed(u)
        d, longest = directions.direction(u, residual), 1.0
        for taken in range(1, self.steps + 1):
            directions, d, step, renewed = self._next(u, residual, d, longest, directions, taken == self.steps)
            if step is None:
                return self._stuck(u, residual, taken - 1, directions)
            u, residual = step.u, step.residual
            if step.converged or taken == self.steps:
                break
            if renewed is None:
                d, longest = step.following, 1.0
            else:
                directions, following = renewed, renewed.direction(u, residual)
                d, longest = following, self._predicted(d, step, following)
        error = self._error(u, residual, directions)
        lost = not (error <= self.tolerance or self.equation.linear) and self._lost(error, u, start)
        return NewtonResult(u, residual, error, taken, directions, lost)

    def _next(
        self, u: Tensor, residual: Tensor, d: Tensor, longest: float, directions: Directions, last: bool
    ) -> tuple[Directions, Tensor, _Step | None, Directions | None]:
        """A step from u along d, with new factors at u where the old ones fail, and without them at u+ if it is last.

        It returns the factors and the direction of the step, the step, and the factors at its end where the old ones
        are no longer good enough.
        """
        fresh = directions.belongs(u)
        step = self._step(u, d, directions, longest, fresh)
        if step is None and not fresh:
            directions, fresh = directions.renewed(u), True
            d = directions.direction(u, residual)
            step = self._step(u, d, directions, 1.0, fresh)
        while not (step is None or step.converged or last or self._lasts(step, fresh)):
            try:
                return directions, d, step, directions.renewed(step.u)
            except SingularMatrixError:
                # The step is too long, like one to a point where R is not finite: no direction leads on from there.
                shorter = 0.5 * step.length
                step = self._step(u, d, directions, shorter, fresh) if fresh and shorter > _SHORTEST else None
        return directions, d, step, None

    def _step(self, u: Tensor, d: Tensor, directions: Directions, length: float, fresh: bool) -> _Step | None:
        """The longest step along -d of those tried that passes the test; None if none does.

        Factors of another point get one trial.
        """
        size = self.equation.norm(d)
        if not math.isfinite(size):
            return None
        for _ in range(_MOST_TRIALS if fresh else 1):
            candidate = u - length * d
            residual = self.equation.residual(candidate)
            norm = self.equation.length(candidate) if torch.isfinite(residual).all() else math.inf
            if not math.isfinite(norm):
                length *= 0.5
                continue
            if self.equation.surely_solved(residual, norm, self.tolerance):
                return _Step(candidate, residual, True, length, torch.zeros_like(d))
            following = directions.direction(candidate, residual)
            left = self.equation.norm(following)
            # The bound is loose by up to 1/h where residuals oscillate, as rounding errors do.
            rounding = max(0.1 * self.tolerance, _ROUNDING) * norm
            if left <= rounding and self._error(candidate, residual, directions) <= self.tolerance:
                return _Step(candidate, residual, True, length, following)
            contraction = left / size if size > 0.0 else math.inf
            if contraction <= (1.0 - 0.25 * length if fresh else _POOR):
                return _Step(candidate, residual, False, length, following, contraction)
            if left <= _ROUNDING * norm:
                return None
            curved = self.equation.norm(following - (1.0 - length) * d)
            best = 0.5 * length * (length * size / curved) if curved > 0.0 else 0.0
            length = min(max(best, 0.1 * length), 0.5 * length)
        return None

    def _lasts(self, step: _Step, fresh: bool) -> bool:
        """Whether the factors are good for the steps that are left.

        After a step with factors of its own point, the next ones contract by about twice its factor.
        """
        rate = 2.0 * step.contraction if fresh else step.contraction
        if step.length < 1.0 or rate >= _POOR:
            return False
        if rate == 0.0:
            return True
        left = quotient(self.equation.norm(step.following), self.equation.length(step.u))
        goal = max(0.5 * self.tolerance, _LEAST)
        return left <= goal or (math.isfinite(left) and math.log(goal / left) / math.log(rate) <= self.patience)

    def _predicted(self, d: Tensor, step: _Step, following: Tensor) -> float:
        """The length of the next step: full after a full one, else by how the direction has turned (Deuflhard)."""
        if step.length == 1.0:
            return 1.0
        norm = self.equation.norm
        turned = quotient(norm(step.following - following), norm(step.following))
        grown = quotient(norm(following), norm(d))
        if turned == 0.0 or grown == 0.0:
            return 1.0
        predicted = step.length / turned / grown
        return 0.1 * step.length if math.isnan(predicted) else min(1.0, max(predicted, 0.1 * step.length))

    def _lost(self, error: float, u: Tensor, start: Tensor) -> bool:
        """Whether the error is as large as the iterate and the start, one of which may be near a root that is zero."""
        length = self.equation.length
        return not error * length(u) < _LOST * max(length(u), length(start))

    def _error(self, u: Tensor, residual: Tensor, directions: Directions) -> float:
        return self.equation.error(u, residual, lambda: directions.direction(u, residual), self.tolerance)

    def _stuck(self, u: Tensor, residual: Tensor, taken: int, directions: Directions) -> NewtonResult:
        error = self._error(u, residual, directions)
        return NewtonResult(u, residual, error, taken, directions, not error <= max(_USELESS, self.tolerance))


@dataclass(frozen=True)
class MapRoot:
    """The last iterate of Newton's method for a map, whether its correction is small enough, and a sentence."""

    solution: Tensor
    converged: bool
    message: str


def newton(
    residual: Map,
    solver: Callable[[Tensor], Map],
    start: Tensor,
    rtol: float,
    iterations: int,
    norm: Callable[[Tensor], float] = lambda x: length(x, lambda unit: unit),
) -> MapRoot:
    """Solve residual(x) = 0 for a map, with factors at every iterate.

    Args:
        residual: R.
        solver: x -> a function that solves with J(x); may raise SingularMatrixError.
        start: first iterate, any shape.
        rtol: length of the correction to reach, relative to that of x.
        iterations: largest number of steps.
        norm: the norm of x and of corrections.
    """
    equation = _MapEquation(residual, norm)
    try:
        directions = _MapDirections(solver, start, solver(start))
        found = Newton(equation, rtol, iterations, patience=0).solve(start, directions)
    except SingularMatrixError as singular:
        return MapRoot(start, False, str(singular))
    if found.error <= rtol:
        last = found.directions.direction(found.u, found.residual)
        return MapRoot(found.u - last, True, f"{found.steps} Newton steps")
    if not torch.isfinite(found.residual).all():
        return MapRoot(found.u, False, "the first residual is not finite")
    return MapRoot(found.u, False, f"{found.steps} Newton steps left a relative correction of {found.error:.1e}")


@dataclass(frozen=True)
class _MapEquation:
    """An `RootProblem` without a certificate: errors are the lengths of corrections."""

    residual: Map
    norm: Callable[[Tensor], float]
    linear: bool = False

    def length(self, u: Tensor) -> float:
        return self.norm(u)

    def surely_solved(self, residual: Tensor, length: float, tolerance: float) -> bool:
        return not torch.count_nonzero(residual)

    def error(self, u: Tensor, residual: Tensor, correction: Callable[[], Tensor], tolerance: float) -> float:
        if not torch.isfinite(residual).all():
            return math.nan
        return quotient(self.norm(correction()), self.norm(u)) if torch.count_nonzero(residual) else 0.0


@dataclass(frozen=True)
class _MapDirections:
    """Newton directions by a function that solves with J at one point."""

    solver: Callable[[Tensor], Map]
    at: Tensor
    solve: Map

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        return self.solve(residual)

    def belongs(self, u: Tensor) -> bool:
        return torch.equal(u, self.at)

    def renewed(self, u: Tensor) -> _MapDirections:
        return replace(self, at=u, solve=self.solver(u))
