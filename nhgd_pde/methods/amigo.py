"""AmIGO: warm-started stochastic gradient steps on the inner problem and on the linear system.

    u <- u - a K^-1 grad_u l(u, v; S_t)                              T times, from the last u
    q <- q - b K^-1 (H(u, v; B_j) q - grad_u f)                      N times, from the last q
    h = grad_v f - (d2_vu l(u, v; D))^T q

Arbel and Mairal 2022, arXiv 2111.14580, Algorithms 1 to 3 (with z = -q). Every sample is fresh.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation
from .common import (
    MethodState,
    conclude,
    draw,
    relaxation_steps,
    sampled_adjoint_error,
    sampled_descent,
    sampled_state_error,
    sampled_step,
    start,
)
from .compared_method import Compared


@dataclass(frozen=True)
class AmIGO(Compared):
    """Options; an `Oracle`.

    Attributes:
        tests: size of every sample.
        inner_steps, steps: T and N; None makes them of the order of the condition number, as in the analysis.
        inner_step, linear_step: a and b; None is the step that is stable in mean square.
        seed: seed of the samples.
    """

    tests: int = 64
    inner_steps: int | None = None
    steps: int | None = None
    inner_step: float | None = None
    linear_step: float | None = None
    seed: int = 0
    name: str = "amigo"
    summary: ClassVar[str] = "warm-started stochastic steps on the state and the linear system"
    stochastic: ClassVar[bool] = True
    tracking: ClassVar[bool] = True

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        return start(problem, u, v, "AmIGO", self.seed)

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        metric = problem.inner_metric
        u, taken, known = sampled_descent(problem, v, state, self.tests, self.inner_steps, self.inner_step)
        inner, outer = problem.outer_derivatives(u, v)
        batch = draw(problem, u, v, self.tests, state)
        b = self.linear_step or sampled_step(batch, known.spectrum)
        steps = relaxation_steps(known.spectrum, b) if self.steps is None else self.steps
        q = torch.zeros_like(u) if state.q is None else state.q
        for _ in range(steps):
            hessian = draw(problem, u, v, self.tests, state).hessian
            q = q - b * metric.gradient(hessian(q) - inner)
        return conclude(
            problem,
            v,
            before=state,
            after=replace(known, u=u, q=q),
            at=(u, q),
            parts=(outer, -batch.cross(q)),
            errors=(
                sampled_state_error(problem, batch, u, v),
                sampled_adjoint_error(problem, inner - batch.hessian(q), inner),
            ),
            steps=(taken, steps),
        )
