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

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

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


class SampledTerms(NamedTuple):
    """grad_u l (S, n), H q (S, n) and a function for (d2_vu l)^T q (p,), as far as a sample or a pool shows them."""

    gradient: Tensor
    image: Tensor
    cross: Callable[[], Tensor]


@dataclass(frozen=True)
class SOBA(Compared):
    """Options; an `Oracle`.

    Attributes:
        tests: size of the sample.
        inner_step, linear_step: a and b; None is `share` of the step that is stable in mean square.
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
    title: ClassVar[str] = "SOBA"
    summary: ClassVar[str] = "state, linear system and control move at the same time"
    stochastic: ClassVar[bool] = True
    tracking: ClassVar[bool] = True
    share: ClassVar[float] = 1.0

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        state = replace(start(problem, u, v, self.title, self.seed), q=torch.zeros_like(u))
        return self._warmed(problem, v, state)

    def _warmed(self, problem: BilevelProblem, v: Tensor, state: MethodState) -> MethodState:
        warm_up, taken = self.warm_up, 0
        while warm_up is None or taken < warm_up:
            batch, terms, state = self._terms(problem, v, state)
            if warm_up is None:
                warm_up = relaxation_steps(state.spectrum, min(self._steps(batch, state)))
            state = self._moved(problem, state, batch, terms, problem.outer_derivatives(state.u, v)[0])
            taken += 1
        return state

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        state = surveyed(problem, state.u, v, state)
        assert state.q is not None
        batch, terms, seen = self._terms(problem, v, state)
        inner, outer = problem.outer_derivatives(state.u, v)
        return conclude(
            problem,
            v,
            before=state,
            after=self._moved(problem, seen, batch, terms, inner),
            at=(state.u, state.q),
            parts=(outer, -terms.cross()),
            errors=(
                sampled_state_error(problem, batch, state.u, v),
                sampled_adjoint_error(problem, inner - terms.image, inner),
            ),
            steps=(1, 1),
        )

    def _terms(
        self, problem: BilevelProblem, v: Tensor, state: MethodState
    ) -> tuple[InnerBatch, SampledTerms, MethodState]:
        """A batch at the state, the terms of the directions, and the state that has seen the batch."""
        q = state.q
        assert q is not None
        batch = draw(problem, state.u, v, self.tests, state)
        return batch, SampledTerms(batch.gradient, batch.hessian(q), lambda: batch.cross(q)), state

    def _moved(
        self, problem: BilevelProblem, state: MethodState, batch: InnerBatch, terms: SampledTerms, inner: Tensor
    ) -> MethodState:
        """The state after the steps of u and q; `inner` is grad_u f."""
        a, b = self._steps(batch, state)
        assert state.q is not None
        u = state.u - a * problem.inner_metric.gradient(terms.gradient)
        return replace(state, u=u, q=state.q - b * problem.inner_metric.gradient(terms.image - inner))

    def _steps(self, batch: InnerBatch, state: MethodState) -> tuple[float, float]:
        stable = self.share * sampled_step(batch, state.spectrum)
        return self.inner_step or stable, self.linear_step or stable
