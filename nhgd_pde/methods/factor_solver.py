"""The equations of some scenarios, solved by the factors of each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..engine.bilevel import StateFactors
from ..engine.scenarios.part_equations import RowSolutions
from ..engine.scenarios.scenario_bilevel import Part
from ..engine.state_newton import solve_from_anywhere
from .adjoint import ExactDirections

# A solution is zero up to rounding where its length and its error are below this share of the length of the start.
_ZERO = 1e-12


class FactorisedPart(Part, Protocol):
    """Some scenarios whose matrices can be factorised."""

    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors: ...


@dataclass(frozen=True)
class FactorSolver:
    """Solves the equations of a part by its own factors; a `PartSolver`.

    Attributes:
        factors: (part, u) -> the factors of J there.
    """

    factors: Callable[[Any, Tensor], StateFactors]

    def states(self, part: Any, v: Tensor, start: Tensor) -> RowSolutions:
        residual, steps, message = part.residual(start, v), 1, ""
        if part.linear:
            u = start - self.factors(part, start).solve(residual)
            residual = part.residual(u, v)
        else:
            root = solve_from_anywhere(part, v, start, ExactDirections(part, v, start), 1e-10, 50)
            u, residual, steps, message = root.u, root.residual, root.steps, root.message if root.failed else ""
        return _rows(part, u, residual, start, lambda left: self.factors(part, u).solve(left), steps, message)

    def adjoints(self, part: Any, v: Tensor, u: Tensor, right: Tensor, start: Tensor) -> RowSolutions:
        solve = self.factors(part, u).solve_transposed
        p = solve(right)
        return _rows(part, p, right - part.state_product_transposed(u, v, p), start, solve)


def _rows(
    part: Part,
    solution: Tensor,
    residual: Tensor,
    start: Tensor,
    solve: Callable[[Tensor], Tensor],
    steps: int = 0,
    message: str = "",
) -> RowSolutions:
    """Solutions by factors; their error and their length are those of all rows together."""
    metric = part.inner_metric
    # Near a resonance errors are larger than residuals by orders of magnitude, and take a solve each.
    error = metric.dual_norm_bound(residual) if part.definite else metric.norm(solve(residual))
    length = metric.norm(solution)
    if max(error, length) <= _ZERO * metric.norm(start):
        error = 0.0
    every = solution.new_ones(len(solution))
    return RowSolutions(solution, residual, error * every, length * every, steps, message)
