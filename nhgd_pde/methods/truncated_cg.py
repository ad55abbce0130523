"""Approximate implicit differentiation with conjugate gradients (AID-CG), warm-started.

    u <- u - t K^-1 grad_u E l                       T times, from the last u
    H q = grad_u f                                   k conjugate gradient steps, from the last q
    h = grad_v f - (d2_vu g)^T q

Grazzi, Franceschi, Pontil, Salzo 2020, arXiv 2006.16218, Algorithm 2, whose T and k are fixed; with the tolerances of
HOAG (Pedregosa 2016, arXiv 1602.02355, Algorithm 1), at which both loops end earlier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..engine.bilevel import BilevelProblem
from ..linalg.conjugate_gradients import conjugate_gradients
from .common import MethodState
from .two_loops import LinearSolution, TwoLoops


@dataclass(frozen=True)
class TruncatedCG(TwoLoops):
    """AID-CG; k is `steps`."""

    name: str = "truncated_cg"
    title: ClassVar[str] = "truncated conjugate gradients"
    summary: ClassVar[str] = "implicit differentiation with truncated conjugate gradients"

    def _solved(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, inner: Tensor, state: MethodState, tolerance: float
    ) -> LinearSolution:
        def hessian(w: Tensor) -> Tensor:
            return problem.hessian_product(u, v, w)

        found = conjugate_gradients(hessian, inner, problem.inner_metric.gradient, state.q, tolerance, self.steps)
        return LinearSolution(found.solution, found.error, found.iterations)
