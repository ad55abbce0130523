"""SABA: SOBA with SAGA's variance reduction on a finite pool of samples.

    l = (1/N) sum_i l_i, i uniform;   for every term T of {grad_u l, H q, (d2_vu l)^T q}
    T~ = T_i(now) - T_i(table) + mean(table),   then T_i(table) <- T_i(now)
    D_u = grad_u l~,   D_q = (H q)~ - grad_u f,   D_v = grad_v f - ((d2_vu l)^T q)~
    (u, q, v) <- (u - a K^-1 D_u, q - b K^-1 D_q, v - c M^-1 D_v)

Dagreou, Ablin, Vaiter, Moreau 2022, arXiv 2201.13409, section 2.3. The pool is drawn once, with the seed, and the
optimum is that of the finite sum. It is regular where the tests of the pool, N m, exceed the n inner unknowns of a
scenario (every scenario has its own); in the residual form this optimum is then the one of the expectation, because all
tested residuals are zero at u*, and W J (J^T W J)^-1 = J^-T for any regular mean W of w w^T.

The memory is 2 d + p numbers per pool member for the tables, and m d for its tests, which for the default pool of N m =
2 n add up to 2 n (d + (2 d + p) / m).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem, InnerBatch, Sample
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation
from .common import (
    MethodState,
    conclude,
    relaxation_steps,
    sampled_adjoint_error,
    sampled_state_error,
    sampled_step,
    start,
    surveyed,
)
from .compared_method import Compared

# SAGA's step is 1 / (3 L) with the L of a single term (Defazio, Bach, Lacoste-Julien 2014).
_CAUTION = 1.0 / 3.0


@dataclass(frozen=True)
class Terms:
    """grad_u l (S, n), H q (S, n) and (d2_vu l)^T q (p,) of one pool member, or combinations of them."""

    gradient: Tensor
    image: Tensor
    cross: Tensor

    def plus(self, other: Terms, factor: float = 1.0) -> Terms:
        return Terms(
            self.gradient + factor * other.gradient,
            self.image + factor * other.image,
            self.cross + factor * other.cross,
        )


@dataclass(frozen=True)
class SABAState(MethodState):
    """The state with the pool, the table of every member's terms when it was last seen, and their mean."""

    pool: tuple[Sample, ...] = ()
    table: tuple[Terms, ...] = ()
    mean: Terms | None = None


@dataclass(frozen=True)
class SABA(Compared):
    """Options; an `Oracle`.

    Attributes:
        tests: m, size of a sample.
        pool: N, number of samples; None takes 2 n / m, for a finite sum of moderate condition.
        inner_step, linear_step: a and b; None is SAGA's, a third of the step that is stable in mean square.
        warm_up: number of steps of u and q alone before the first evaluation; see `SOBA`.
        seed: seed of the pool and of the order in which it is visited.
    """

    tests: int = 64
    pool: int | None = None
    inner_step: float | None = None
    linear_step: float | None = None
    warm_up: int | None = None
    seed: int = 0
    name: str = "saba"
    summary: ClassVar[str] = "soba with variance reduction on a finite pool of samples"
    stochastic: ClassVar[bool] = True
    tracking: ClassVar[bool] = True

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> SABAState:
        plain = start(problem, u, v, "SABA", self.seed)
        count = self.pool or math.ceil(2 * problem.inner_shape[1] / self.tests)
        pool = tuple(problem.sample(self.tests, plain.generator) for _ in range(count))
        q = torch.zeros_like(u)
        seen = [problem.batch(u, v, sample) for sample in pool]
        table = tuple(_terms(batch, q) for batch in seen)
        mean = Terms(torch.zeros_like(u), q, torch.zeros_like(v))
        for terms in table:
            mean = mean.plus(terms, 1.0 / count)
        state = SABAState(
            u, q, plain.generator, plain.spectrum, u, plain.description, pool=pool, table=table, mean=mean
        )
        slowest = min(self._steps(seen[0], state))
        for _ in range(relaxation_steps(state.spectrum, slowest) if self.warm_up is None else self.warm_up):
            batch, terms, state = self._reduced(problem, v, state)
            state = self._moved(problem, state, batch, terms, problem.outer_derivatives(state.u, v)[0])
        return state

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: SABAState, accuracy: Accuracy
    ) -> tuple[Evaluation, SABAState]:
        state = surveyed(problem, state.u, v, state)
        assert state.q is not None
        inner, outer = problem.outer_derivatives(state.u, v)
        batch, terms, seen = self._reduced(problem, v, state)
        return conclude(
            problem,
            v,
            before=state,
            after=self._moved(problem, seen, batch, terms, inner),
            at=(state.u, state.q),
            parts=(outer, -terms.cross),
            errors=(
                sampled_state_error(problem, batch, state.u, v),
                sampled_adjoint_error(problem, inner - terms.image, inner),
            ),
            steps=(1, 1),
        )

    def _reduced(self, problem: BilevelProblem, v: Tensor, state: SABAState) -> tuple[InnerBatch, Terms, SABAState]:
        """A member's batch, the terms T~, and the state with the member's new row in the table."""
        assert state.q is not None and state.mean is not None
        count = len(state.pool)
        i = int(torch.randint(count, (), generator=state.generator))
        batch = problem.batch(state.u, v, state.pool[i])
        now = _terms(batch, state.q)
        change = now.plus(state.table[i], -1.0)
        table = (*state.table[:i], now, *state.table[i + 1 :])
        return batch, state.mean.plus(change), replace(state, table=table, mean=state.mean.plus(change, 1.0 / count))

    def _moved(
        self, problem: BilevelProblem, state: SABAState, batch: InnerBatch, terms: Terms, inner: Tensor
    ) -> SABAState:
        a, b = self._steps(batch, state)
        assert state.q is not None
        u = state.u - a * problem.inner_metric.gradient(terms.gradient)
        return replace(state, u=u, q=state.q - b * problem.inner_metric.gradient(terms.image - inner))

    def _steps(self, batch: InnerBatch, state: MethodState) -> tuple[float, float]:
        stable = _CAUTION * sampled_step(batch, state.spectrum)
        return self.inner_step or stable, self.linear_step or stable


def _terms(batch: InnerBatch, q: Tensor) -> Terms:
    return Terms(batch.gradient, batch.hessian(q), batch.cross(q))
