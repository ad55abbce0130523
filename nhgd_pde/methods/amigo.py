"""AmIGO: warm-started stochastic gradient steps on the inner problem and on the linear system.

    u <- u - a K^-1 grad_u l(u, v; S_t)                              T times, from the last u
    q <- q - b K^-1 (H(u, v; B_j) q - grad_u f)                      N times, from the last q
    h = grad_v f - (d2_vu l(u, v; D))^T q

Arbel and Mairal 2022, arXiv 2111.14580, Algorithms 1 to 3 (with z = -q). Every sample is fresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem, InnerBatch
from .common import MethodState, draw, sampled_adjoint_error
from .two_loops import SampledLoops


@dataclass(frozen=True)
class AmIGO(SampledLoops):
    """AmIGO; N is `steps`."""

    name: str = "amigo"
    title: ClassVar[str] = "AmIGO"
    summary: ClassVar[str] = "warm-started stochastic steps on the state and the linear system"

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
        q = torch.zeros_like(state.u) if state.q is None else state.q
        for _ in range(steps):
            hessian = draw(problem, state.u, v, self.tests, state).hessian
            q = q - step * problem.inner_metric.gradient(hessian(q) - inner)
        return q, sampled_adjoint_error(problem, inner - batch.hessian(q), inner)
