"""Newton's method for the inner problem R(u, v) = 0: factors that are kept while they serve, steps that are damped.

With J_k = dR/du factorised at some point, which may be an earlier one, a step is

    d = J_k^-1 R(u),   u+ = u - length d,   d+ = J_k^-1 R(u+)

and is judged by the natural monotonicity test |d+| <= (1 - length / 4) |d| in the norm of the inner metric (Deuflhard
2011, Newton Methods for Nonlinear Problems, Section 3.3). It sees errors, not residuals, which allow tiny steps only
where convection dominates; and d+ is no waste: while the factors are kept it is the next step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import quotient
from .bilevel import BilevelProblem

# Shortenings of one step.
_MOST_TRIALS = 16
# A step that reduces the next one by less than this asks for new factors, where these are not of its point.
_POOR = 0.5
# Steps with kept factors that are worth a factorisation.
_PATIENCE = 5
# Shorter steps lead nowhere.
_SHORTEST = 1e-5
# Nothing is gained by steps shorter than this, relative to u: those of rounding errors.
_ROUNDING = 1e-12
# A relative residual at which no step helps any more that is not a matter of rounding.
_USELESS = 1e-6
# Relative errors below this are rounding errors.
_LEAST = 1e-16


class Directions(Protocol):
    """Newton directions from factors of J at one point."""

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        """J_k^-1 R(u), (S, n), of the residual at u."""
        ...

    def belongs(self, u: Tensor) -> bool:
        """The factors are those of u."""
        ...

    def renewed(self, u: Tensor) -> Directions:
        """Those with the factors of u; a `SingularMatrixError` where there are none."""
        ...


@dataclass(frozen=True)
class Root:
    """What Newton's method found.

    Attributes:
        u: the last iterate; where the method failed, the start.
        residual: R at the last iterate.
        error: its certificate, see `BilevelProblem.inner_error`.
        steps: taken.
        directions: with the last factors.
        failed: no step brought u nearer to a root; u is not to be used.
        message: a sentence where the tolerance was not reached.
    """

    u: Tensor
    residual: Tensor
    error: float
    steps: int
    directions: Directions
    failed: bool = False
    message: str = ""


@dataclass(frozen=True)
class _Step:
    """A step that was accepted: where it leads, what is left there, and the next step with the same factors."""

    u: Tensor
    residual: Tensor
    converged: bool
    length: float
    following: Tensor | None = None
    contraction: float = 0.0


def solve_from_anywhere(
    problem: BilevelProblem, v: Tensor, start: Tensor, directions: Directions, tolerance: float, steps: int
) -> Root:
    """As `newton`; where it fails from the solution at earlier outer variables, from a start that forgets them.

    After a long step of v the last solution may be worse than none: an evolution that has left it for another branch is
    solved step by step from its beginning.
    """
    try:
        found = newton(problem, v, start, directions, tolerance, steps)
        if not found.failed or problem.linear:
            return found
    except SingularMatrixError:
        if problem.linear:
            raise
        found = None
    cold = problem.cold_start(v)
    if torch.equal(cold, start):
        return found if found is not None else newton(problem, v, start, directions, tolerance, steps)
    again = newton(problem, v, cold, found.directions if found is not None else directions, tolerance, steps)
    return replace(again, u=start) if again.failed else again


def newton(
    problem: BilevelProblem, v: Tensor, start: Tensor, directions: Directions, tolerance: float, steps: int
) -> Root:
    """Solve R(u, v) = 0 for u.

    Factors are kept while they contract well enough, and renewed where a step with them fails, or would have too
    many followers. A candidate at which R is not finite is a step too long.

    Args:
        problem: with R.
        v: outer variables.
        start: first u.
        directions: with the factors to begin with.
        tolerance: relative dual norm of the residual to reach.
        steps: most steps.

    Raises:
        SingularMatrixError: J is singular at the start, or where kept factors have led.
    """
    u, residual = start, problem.residual(start, v)
    if not torch.isfinite(residual).all():
        return _stuck(problem, v, u, residual, start, 0, directions, tolerance)
    if problem.linear and not directions.belongs(u):
        directions = directions.renewed(u)
    d, length = directions.direction(u, residual), 1.0
    for taken in range(1, steps + 1):
        fresh, renewed = directions.belongs(u), None
        step = _step(problem, v, u, d, directions, tolerance, length, fresh)
        while True:
            if step is None and not fresh:
                directions, fresh = directions.renewed(u), True
                d = directions.direction(u, residual)
                step = _step(problem, v, u, d, directions, tolerance, 1.0, fresh)
            if step is None or step.converged or taken == steps or _lasts(problem, v, step, tolerance, fresh):
                break
            try:
                renewed = directions.renewed(step.u)
                break
            except SingularMatrixError:
                # No way leads on from there: a step too long, as one to where R is not finite.
                length = 0.5 * step.length
                again = fresh and length > _SHORTEST
                step = _step(problem, v, u, d, directions, tolerance, length, fresh) if again else None
        if step is None:
            return _stuck(problem, v, u, residual, start, taken - 1, directions, tolerance)
        u, residual = step.u, step.residual
        if step.converged:
            return Root(u, residual, problem.residual_error(residual, u, v, tolerance), taken, directions)
        if taken == steps:
            break
        assert step.following is not None
        if renewed is None:
            d, length = step.following, 1.0
            continue
        directions = renewed
        following = directions.direction(u, residual)
        length = _predicted(problem, d, step, following)
        d = following
    error = problem.residual_error(residual, u, v, tolerance)
    message = "" if error <= tolerance else f"{steps} inner steps left a relative residual of {error:.1e}"
    return Root(u, residual, error, steps, directions, message=message)


def _step(
    problem: BilevelProblem,
    v: Tensor,
    u: Tensor,
    d: Tensor,
    directions: Directions,
    tolerance: float,
    length: float,
    fresh: bool,
) -> _Step | None:
    """The longest step along -d of those tried that passes; None if none does. Factors of another point get one try."""
    metric = problem.inner_metric
    size = metric.norm(d)
    if not math.isfinite(size):
        return None
    for _ in range(_MOST_TRIALS if fresh else 1):
        candidate = u - length * d
        residual = problem.residual(candidate, v)
        if not torch.isfinite(residual).all():
            length *= 0.5
            continue
        norm = problem.inner_length(candidate, v)
        if not math.isfinite(norm):
            length *= 0.5
            continue
        if _bounded(problem, residual, norm, tolerance):
            return _Step(candidate, residual, True, length)
        following = directions.direction(candidate, residual)
        left = metric.norm(following)
        # The bound is loose by up to 1/h where residuals oscillate, as rounding errors do.
        rounding = max(0.1 * tolerance, _ROUNDING) * norm
        if left <= rounding and problem.residual_error(residual, candidate, v, tolerance) <= tolerance:
            return _Step(candidate, residual, True, length)
        contraction = left / size if size > 0.0 else math.inf
        if contraction <= (1.0 - 0.25 * length if fresh else _POOR):
            return _Step(candidate, residual, False, length, following, contraction)
        if left <= _ROUNDING * norm:
            return None
        curved = metric.norm(following - (1.0 - length) * d)
        best = 0.5 * length * (length * size / curved) if curved > 0.0 else 0.0
        length = min(max(best, 0.1 * length), 0.5 * length)
    return None


def _bounded(problem: BilevelProblem, residual: Tensor, norm: float, tolerance: float) -> bool:
    """The cheap bound of the certificate shows convergence."""
    if not torch.count_nonzero(residual):
        return True
    return norm > 0.0 and problem.inner_metric.dual_norm_bound(residual) <= tolerance * norm


def _lasts(problem: BilevelProblem, v: Tensor, step: _Step, tolerance: float, fresh: bool) -> bool:
    """The factors are good for what is left to do.

    After a step with factors of its own point, the next ones contract by about twice its factor.
    """
    assert step.following is not None
    rate = 2.0 * step.contraction if fresh else step.contraction
    if step.length < 1.0 or rate >= _POOR:
        return False
    if rate == 0.0:
        return True
    left = quotient(problem.inner_metric.norm(step.following), problem.inner_length(step.u, v))
    goal = max(0.5 * tolerance, _LEAST)
    return left <= goal or (math.isfinite(left) and math.log(goal / left) / math.log(rate) <= _PATIENCE)


def _predicted(problem: BilevelProblem, d: Tensor, step: _Step, following: Tensor) -> float:
    """The length of the next step: full after a full one, else by how the direction has turned (Deuflhard)."""
    if step.length == 1.0:
        return 1.0
    assert step.following is not None
    metric = problem.inner_metric
    turned = quotient(metric.norm(step.following - following), metric.norm(step.following))
    grown = quotient(metric.norm(following), metric.norm(d))
    if turned == 0.0 or grown == 0.0:
        return 1.0
    predicted = step.length / turned / grown
    return 0.1 * step.length if math.isnan(predicted) else min(1.0, max(predicted, 0.1 * step.length))


def _stuck(
    problem: BilevelProblem,
    v: Tensor,
    u: Tensor,
    residual: Tensor,
    start: Tensor,
    taken: int,
    directions: Directions,
    tolerance: float,
) -> Root:
    error = problem.residual_error(residual, u, v, tolerance)
    if error <= tolerance:
        return Root(u, residual, error, taken, directions)
    failed = not error <= _USELESS
    message = f"no step reduces the inner residual {error:.1e}"
    if math.isnan(error):
        message = "no step reduces the inner residual, which is not finite where the search begins"
    elif math.isinf(error):
        message = "no step leads from inner variables that are zero nearer to a solution"
    return Root(start if failed else u, residual, error, taken, directions, failed, message)
