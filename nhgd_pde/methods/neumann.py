"""The hypergradient by a truncated Neumann series.

    u <- u - t K^-1 grad_u E l                                   T times, from the last u
    q = t sum_{j=0}^{k} (I - t K^-1 H)^j K^-1 grad_u f
    h = grad_v f - (d2_vu g)^T q

Lorraine, Vicol, Duvenaud 2020, arXiv 1911.02590, Algorithm 3 (NeumannHypergrad); the error of q is that of k + 1
gradient steps from zero, (1 - t mu)^(k + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..engine.bilevel import BilevelProblem
from .common import MethodState, gradient_step
from .two_loops import LinearSolution, TwoLoops


@dataclass(frozen=True)
class Neumann(TwoLoops):
    """The truncated Neumann series; k is `steps`.

    Attributes:
        linear_step: t of the series; None is the best step of the inner spectrum.
    """

    linear_step: float | None = None
    name: str = "neumann"
    title: ClassVar[str] = "truncated Neumann series"
    summary: ClassVar[str] = "implicit differentiation with a truncated Neumann series"

    def _solved(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, inner: Tensor, state: MethodState, tolerance: float
    ) -> LinearSolution:
        metric = problem.inner_metric
        t = self.linear_step or gradient_step(state.spectrum)
        q = term = t * metric.gradient(inner)
        # K^-1 (grad_u f - H q) is 1/t times the first term left out, so that the last term used bounds it.
        first, error, steps = metric.norm(term), 1.0 if term.any() else 0.0, 0
        while steps < self.steps and error > tolerance:
            term = term - t * metric.gradient(problem.hessian_product(u, v, term))
            q = q + term
            error, steps = metric.norm(term) / first, steps + 1
        return LinearSolution(q, error, steps, f"the Neumann series with step {t:.1e} diverges" if error > 1.0 else "")
