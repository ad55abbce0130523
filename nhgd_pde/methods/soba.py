"""SOBA: inner variables, linear system and outer variables all move at the same time, with the same sample.

    D_u = grad_u l(u, v; xi)
    D_q = H(u, v; xi) q - grad_u f(u, v)
    D_v = grad_v f(u, v) - (d2_vu l(u, v; xi))^T q
    (u, q, v) <- (u - a K^-1 D_u, q - b K^-1 D_q, v - c M^-1 D_v)

Dagreou, Ablin, Vaiter, Moreau 2022, arXiv 2201.13409, Algorithm 1 with the directions of its section 2; the paper's
z, v, x are u, -q, v here. The outer method takes the step of v, with D_v as its derivative; a constant step c makes it
SOBA.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem, InnerBatch
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation
from .common import (
    MethodState,
    conclude,
    draw,
    relaxation_steps,
    sampled_adjoint_error,
    sampled_state_error,
    sampled_step,
    start,
    surveyed,
)
from .compared_method import Compared


@dataclass(frozen=True)
class SOBA(Compared):
    """Options; an `Oracle`.

    Attributes:
        tests: size of the sample.
        inner_step, linear_step: a and b; None is the step that is stable in mean square.
        warm_up: number of steps of u and q alone before the first evaluation. Its gradient, which is nearly zero for q
            = 0, sets the scale of the run and of the outer step. With None, u and q reach 5 % of their first distance.
        seed: seed of the samples.
    """

    tests: int = 64
    inner_step: float | None = None
    linear_step: float | None = None
    warm_up: int | None = None
    seed: int = 0
    name: str = "soba"
    summary: ClassVar[str] = "state, linear system and control move at the same time"
    stochastic: ClassVar[bool] = True
    tracking: ClassVar[bool] = True

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        state = replace(start(problem, u, v, "SOBA", self.seed), q=torch.zeros_like(u))
        warm_up, taken = self.warm_up, 0
        while warm_up is None or taken < warm_up:
            batch = draw(problem, state.u, v, self.tests, state)
            if warm_up is None:
                slowest = min(self._steps(batch, state))
                warm_up = relaxation_steps(state.spectrum, slowest)
            state, taken = self._moved(problem, v, state, batch), taken + 1
        return state

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        state = surveyed(problem, state.u, v, state)
        u, q = state.u, state.q
        assert q is not None
        batch = draw(problem, u, v, self.tests, state)
        inner, outer = problem.outer_derivatives(u, v)
        residual = inner - batch.hessian(q)
        return conclude(
            problem,
            v,
            before=state,
            after=self._moved(problem, v, state, batch, residual),
            at=(u, q),
            parts=(outer, -batch.cross(q)),
            errors=(sampled_state_error(problem, batch, u, v), sampled_adjoint_error(problem, residual, inner)),
            steps=(1, 1),
        )

    def _moved(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, batch: InnerBatch, residual: Tensor | None = None
    ) -> MethodState:
        """The state after the steps of u and q; `residual` is -D_q where it is known."""
        assert state.q is not None
        if residual is None:
            residual = problem.outer_derivatives(state.u, v)[0] - batch.hessian(state.q)
        a, b = self._steps(batch, state)
        u = state.u - a * problem.inner_metric.gradient(batch.gradient)
        return replace(state, u=u, q=state.q + b * problem.inner_metric.gradient(residual))

    def _steps(self, batch: InnerBatch, state: MethodState) -> tuple[float, float]:
        stable = sampled_step(batch, state.spectrum)
        return self.inner_step or stable, self.linear_step or stable
