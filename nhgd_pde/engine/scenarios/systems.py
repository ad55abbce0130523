"""State and adjoint equations of a part of the scenarios, preconditioned by one inverse that all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.batched_krylov import BatchedResult, batched_conjugate_gradients, batched_residuals
from ..curvature.base import PointwiseState
from ..newton import solve_from_anywhere
from .problem import Part

# Relative error of a Newton direction.
_INEXACT = 1e-2
_NEWTON_STEPS = 50
_MOST = 200
# Of the longest start: what rounding leaves of a solution that is zero, to which no error is relative.
_ROUNDING = 1e-14


@dataclass(frozen=True)
class Tolerances:
    """Relative errors of states and adjoints to reach, and the lengths that they are relative to."""

    state: float
    adjoint: float
    state_length: float
    adjoint_length: float

    def tightened(self, factor: float) -> Tolerances:
        return replace(self, state=factor * self.state, adjoint=factor * self.adjoint)


@dataclass(frozen=True)
class Rows:
    """Solutions of one system a scenario.

    Attributes:
        solution: (b, n).
        residual: (b, n) what is left of the equations.
        error: (b,) of the solutions in the norm of the inner metric, or a bound.
        steps: applications of the inverse to a row, at most.
        message: a sentence where a system could not be solved.
    """

    solution: Tensor
    residual: Tensor
    error: Tensor
    steps: int
    message: str = ""


def solve_states(part: Part, v: Tensor, start: Tensor, inverse: PointwiseState, goal: float) -> Rows:
    """R_s(u_s, v) = 0 from a start (b, n), to an error of at most `goal` in the norm of the inner metric."""
    if not part.linear:
        return _nonlinear(part, v, start, inverse, goal)

    def product(w: Tensor) -> Tensor:
        return part.state_product(start, v, w)

    residual = part.residual(start, v)
    found = _solved(part, product, -residual, inverse.newton_step, None, max(goal, _rounding(part, start)))
    return Rows(start + found.solution, -found.residual, found.error, found.iterations, _failure(found))


def solve_adjoints(
    part: Part, u: Tensor, v: Tensor, right: Tensor, start: Tensor, inverse: PointwiseState, goal: float
) -> Rows:
    """J_s^T p_s = right_s, (b, n), from a start."""

    def product(w: Tensor) -> Tensor:
        return part.state_product_transposed(u, v, w)

    found = _solved(part, product, right, inverse.adjoint, start, max(goal, _rounding(part, start)))
    return Rows(found.solution, found.residual, found.error, found.iterations, _failure(found))


def _solved(
    part: Part,
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    inverse: Callable[[Tensor], Tensor],
    start: Tensor | None,
    goal: float,
) -> BatchedResult:
    if part.definite:
        return batched_conjugate_gradients(product, right, inverse, start, goal, _MOST)
    return batched_residuals(product, right, inverse, part.inner_metric.covector, start, goal, _MOST)


def _rounding(part: Part, start: Tensor) -> float:
    squares = (start * part.inner_metric.covector(start)).sum(1)
    return _ROUNDING * math.sqrt(max(float(squares.max()), 0.0))


def _failure(found: BatchedResult) -> str:
    return "" if found.converged else f"the scenarios' linear systems: {found.message}"


@dataclass(frozen=True)
class _Directions:
    """Newton directions of every scenario at `at`, preconditioned by the shared inverse."""

    part: Part
    v: Tensor
    inverse: PointwiseState
    at: Tensor

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        def product(w: Tensor) -> Tensor:
            return self.part.state_product(self.at, self.v, w)

        found = batched_residuals(
            product, residual, self.inverse.newton_step, self.part.inner_metric.covector, None, _relative, _MOST
        )
        return found.solution

    def belongs(self, u: Tensor) -> bool:
        return torch.equal(u, self.at)

    def renewed(self, u: Tensor) -> _Directions:
        return replace(self, at=u)


def _relative(first: Tensor) -> Tensor:
    return _INEXACT * first


def _nonlinear(part: Part, v: Tensor, start: Tensor, inverse: PointwiseState, goal: float) -> Rows:
    length = part.inner_length(start, v)
    tolerance = goal / length if length > 0.0 else 1e-8
    root = solve_from_anywhere(
        part, v, start, _Directions(part, v, inverse, start), max(tolerance, 1e-12), _NEWTON_STEPS
    )
    error = (root.u * part.inner_metric.covector(root.u)).sum(1).clamp(min=0.0).sqrt() * root.error
    message = root.message if root.failed else ""
    return Rows(root.u, root.residual, error, root.steps, message)
