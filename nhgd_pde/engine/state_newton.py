"""The inner problem R(u, v) = 0 by Newton's method, from the last solution or, where that fails, from anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from ..linalg.newton import Directions, Newton, NewtonResult
from .bilevel import BilevelProblem


@dataclass(frozen=True)
class Root(NewtonResult):
    """The result, whose error is a certificate (`BilevelProblem.inner_error`); u is the start where the method failed.

    Attributes:
        message: a sentence where the tolerance was not reached.
    """

    message: str = ""


@dataclass(frozen=True)
class _InnerEquation:
    """R(., v) = 0, an `RootProblem` whose errors are certificates."""

    problem: BilevelProblem
    v: Tensor

    @property
    def linear(self) -> bool:
        return self.problem.linear

    def residual(self, u: Tensor) -> Tensor:
        return self.problem.residual(u, self.v)

    def norm(self, d: Tensor) -> float:
        return self.problem.inner_metric.norm(d)

    def length(self, u: Tensor) -> float:
        return self.problem.inner_length(u, self.v)

    def surely_solved(self, residual: Tensor, length: float, tolerance: float) -> bool:
        if not torch.count_nonzero(residual):
            return True
        return length > 0.0 and self.problem.inner_metric.dual_norm_bound(residual) <= tolerance * length

    def error(self, u: Tensor, residual: Tensor, correction: Callable[[], Tensor], tolerance: float) -> float:
        return self.problem.residual_error(residual, u, self.v, tolerance)


def solved_already(
    problem: BilevelProblem, v: Tensor, u: Tensor, directions: Directions, tolerance: float
) -> Root | None:
    """u as a root that took no step, where it is known well enough; None elsewhere."""
    residual = problem.residual(u, v)
    error = problem.residual_error(residual, u, v, tolerance)
    return Root(u, residual, error, 0, directions) if error <= tolerance else None


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
    """Solve R(u, v) = 0 for u, up to a relative dual norm of the residual; see `linalg.newton`.

    Raises:
        SingularMatrixError: J is singular at the start, or where kept factors have led.
    """
    found = Newton(_InnerEquation(problem, v), tolerance, steps).solve(start, directions)
    message = ""
    if not found.error <= tolerance:
        message = _stuck(found.error) if found.steps < steps else ""
        message = message or f"{steps} inner steps left a relative residual of {found.error:.1e}"
    return Root(**{**vars(found), "u": start if found.failed else found.u}, message=message)


def _stuck(error: float) -> str:
    """A sentence on an iterate that no step improves."""
    if math.isnan(error):
        return "no step reduces the inner residual, which is not finite where the search begins"
    if math.isinf(error):
        return "no step leads from inner variables that are zero nearer to a solution"
    return f"no step reduces the inner residual {error:.1e}"
