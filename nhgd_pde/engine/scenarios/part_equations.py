"""State and adjoint equations of a part of the scenarios, preconditioned by one inverse that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.conjugate_gradients import batched_conjugate_gradients
from ...linalg.conjugate_residuals import batched_residuals
from ...linalg.krylov import BatchedResult
from ...linalg.safe_lengths import row_lengths as lengths_in
from ..curvature.base import PointwiseState
from ..state_newton import solve_from_anywhere
from .scenario_bilevel import Part

# Relative error of a Newton direction, and largest number of Newton steps.
_INEXACT = 1e-2
_NEWTON_STEPS = 50
# Largest number of applications of the inverse in one linear system.
_MOST = 200
# Absolute tolerance for solutions that are zero, relative to the longest starting vector.
_ROUNDING = 1e-14
# Errors count relative to the length of the nominal solution, but at least to this share of the longest solution.
_SHARE = 1e-3


@dataclass(frozen=True)
class Tolerances:
    """Relative errors of states and adjoints to reach, and the lengths of the nominal solutions that they refer to.

    The nominal solution may be zero, or tiny compared with those of other scenarios: errors count relative to at least
    a thousandth of the length of the longest solution.
    """

    state: float
    adjoint: float
    state_length: float
    adjoint_length: float


@dataclass(frozen=True)
class RowSolutions:
    """Solutions of one system a scenario.

    Attributes:
        solution: (b, n).
        residual: (b, n) residuals of the equations.
        error: (b,) errors of the solutions in the norm of the inner metric, or bounds of them.
        length: (b,) lengths of the solutions in the same norm.
        steps: largest number of applications of the inverse to a row.
        message: a sentence where a system could not be solved.
        gain: (b,) factor, included in the errors, by which solutions of a scenario are larger than those with the
            shared inverse; None where it is not known, or one.
    """

    solution: Tensor
    residual: Tensor
    error: Tensor
    length: Tensor
    steps: int
    message: str = ""
    gain: Tensor | None = None

    def relative(self, length: float) -> float:
        """The largest relative error, to the length of the nominal solution or a thousandth of the longest one."""
        return relative(float(self.error.max()), length, float(self.length.max()))


def relative(error: float, length: float, longest: float) -> float:
    """An error relative to the length of the nominal solution, or a thousandth of the longest one; 0 for no error."""
    scale = max(length, _SHARE * longest)
    return error / scale if scale > 0.0 else error


@dataclass(frozen=True)
class SharedInverse:
    """Krylov methods that one inverse preconditions; a `PartSolver`.

    Attributes:
        inverse: an approximate inverse that all scenarios share.
        tolerances: tolerances of both equations, in the norm of the inner metric.
        gains: (b,) of states and of adjoints, lower bounds of `RowSolutions.gain` from earlier solves; None without.
    """

    inverse: PointwiseState
    tolerances: Tolerances
    gains: tuple[Tensor, Tensor] | None = None

    def states(self, part: Part, v: Tensor, start: Tensor) -> RowSolutions:
        if not part.linear:
            return self._nonlinear(part, v, start)

        def product(w: Tensor) -> Tensor:
            return part.state_product(start, v, w)

        residual, near = part.residual(start, v), row_lengths(part, start)
        goal = _goal(self.tolerances.state, self.tolerances.state_length, near)
        gain = None if self.gains is None else self.gains[0]
        found = _solved(part, product, -residual, self.inverse.newton_step, None, goal, gain)
        return _rows(part, start + found.solution, replace(found, residual=-found.residual), near)

    def adjoints(self, part: Part, v: Tensor, u: Tensor, right: Tensor, start: Tensor) -> RowSolutions:
        def product(w: Tensor) -> Tensor:
            return part.state_product_transposed(u, v, w)

        near = row_lengths(part, start)
        goal = _goal(self.tolerances.adjoint, self.tolerances.adjoint_length, near)
        gain = None if self.gains is None else self.gains[1]
        found = _solved(part, product, right, self.inverse.adjoint, start, goal, gain)
        return _rows(part, found.solution, found, near)

    def _nonlinear(self, part: Part, v: Tensor, start: Tensor) -> RowSolutions:
        length, tolerances = part.inner_length(start, v), self.tolerances
        wanted = tolerances.state * max(tolerances.state_length / length, _SHARE) if length > 0.0 else 1e-8
        directions = _Directions(part, v, self.inverse, start)
        root = solve_from_anywhere(part, v, start, directions, max(wanted, 1e-12), _NEWTON_STEPS)
        lengths = row_lengths(part, root.u)
        message = root.message if root.failed else ""
        return RowSolutions(root.u, root.residual, lengths * root.error, lengths, root.steps, message)


def row_lengths(part: Part, rows: Tensor) -> Tensor:
    """(b,) lengths of rows in the norm of the inner metric; not finite where a row is not."""
    return lengths_in(rows, part.inner_metric.covector)


def _goal(tolerance: float, length: float, near: Tensor) -> Callable[[Tensor], Tensor]:
    """(b,) goals as a function of the errors of the starts, whose lengths are near (b,).

    A solution is at most as long as its start plus the error of the start. Without a length, and for a solution of
    zero, rounding alone decides which errors are small.
    """
    least = max(tolerance * length, _ROUNDING * float(near.max()))
    return lambda first: (tolerance * _SHARE * (near + first)).clamp(min=least)


def _solved(
    part: Part,
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    inverse: Callable[[Tensor], Tensor],
    start: Tensor | None,
    goal: Callable[[Tensor], Tensor],
    gain: Tensor | None,
) -> BatchedResult:
    """One linear system a scenario, by conjugate gradients where J is definite, else by conjugate residuals."""
    residual = right if start is None else right - product(start)
    if part.definite:
        return batched_conjugate_gradients(product, right, inverse, start, goal, _MOST, residual)
    least = right.new_ones(len(right)) if gain is None else gain
    gram = part.inner_metric.covector
    return batched_residuals(product, right, inverse, gram, start, goal, _MOST, residual, least)


def _rows(part: Part, solution: Tensor, found: BatchedResult, near: Tensor) -> RowSolutions:
    length, rounding = row_lengths(part, solution), _ROUNDING * float(near.max())
    # The error of a solution that is zero to rounding is a rounding error.
    gone = (length <= rounding) & (found.error <= rounding)
    error = torch.where(gone, 0.0, found.error)
    message = "" if found.converged else f"the scenarios' linear systems: {found.message}"
    return RowSolutions(solution, found.residual, error, length, found.iterations, message, found.gain)


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

        gram, goal = self.part.inner_metric.covector, lambda first: _INEXACT * first
        return batched_residuals(product, residual, self.inverse.newton_step, gram, None, goal, _MOST).solution

    def belongs(self, u: Tensor) -> bool:
        return torch.equal(u, self.at)

    def renewed(self, u: Tensor) -> _Directions:
        return replace(self, at=u)
