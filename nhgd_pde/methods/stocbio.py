"""stocBiO: stochastic inner steps and a Neumann series of stochastic Hessians.

    u <- u - a K^-1 grad_u l(u, v; S_t)                          T times, from the last u
    r_0 = K^-1 grad_u f,   r_{j+1} = r_j - b K^-1 H(u, v; B_j) r_j          j = 0, ..., Q - 1
    q = b (r_0 + ... + r_Q)
    h = grad_v f - (d2_vu l(u, v; D))^T q

Ji, Yang, Liang 2021, arXiv 2010.07962, Algorithms 2 and 3. S_t, B_j and D are fresh samples. All have the same size
here; in the paper's analysis the size of B_j shrinks with j, in its experiments it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..engine.bilevel import BilevelProblem, InnerBatch
from .common import MethodState, draw
from .two_loops import SampledLoops


@dataclass(frozen=True)
class StocBiO(SampledLoops):
    """stocBiO; Q is `steps`."""

    name: str = "stocbio"
    title: ClassVar[str] = "stocBiO"
    summary: ClassVar[str] = "stochastic inner steps and Neumann series"

    def _solved(
        self,
        problem: BilevelProblem,
        state: MethodState,
        v: Tensor,
        inner: Tensor,
        batch: InnerBatch,
        step: float,
        steps: int,
    ) -> tuple[Tensor, float]:
        metric = problem.inner_metric
        r = metric.gradient(inner)
        total, first = r, metric.norm(r)
        for _ in range(steps):
            hessian = draw(problem, state.u, v, self.tests, state).hessian
            r = r - step * metric.gradient(hessian(r))
            total = total + r
        # The sum telescopes: r_Q is the residual of K^-1 grad_u f.
        return step * total, metric.norm(r) / first if first > 0.0 else 0.0
