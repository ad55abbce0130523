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

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem, InnerBatch
from ..engine.finite_sums import InnerTerm
from .common import MethodState, start
from .saga_table import inner_pool
from .soba import SOBA, SampledTerms


@dataclass(frozen=True)
class Terms:
    """grad_u l (S, n), H q (S, n) and (d2_vu l)^T q (p,) of one pool member, or combinations of them."""

    gradient: Tensor
    image: Tensor
    cross: Tensor

    @classmethod
    def of(cls, batch: InnerBatch, q: Tensor, factor: float) -> Terms:
        return cls(factor * batch.gradient, factor * batch.hessian(q), factor * batch.cross(q))

    def plus(self, other: Terms, factor: float = 1.0) -> Terms:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Terms(*(mine + factor * theirs for mine, theirs in pairs))


@dataclass(frozen=True)
class SABAState(MethodState):
    """The state with the pool, the table of every member's terms when it was last seen, and their mean."""

    pool: tuple[InnerTerm, ...] = ()
    table: tuple[Terms, ...] = ()
    mean: Terms | None = None


@dataclass(frozen=True)
class SABA(SOBA):
    """Options besides those of SOBA; the seed is that of the pool and of the order in which it is visited.

    Attributes:
        pool: N, number of samples; None takes 2 n / m, for a finite sum of moderate condition. A problem that is a
            finite sum has minibatches of its own.
    """

    name: str = "saba"
    pool: int | None = None
    title: ClassVar[str] = "SABA"
    summary: ClassVar[str] = "soba with variance reduction on a finite pool of samples"
    # SAGA's step is 1 / (3 L) with the L of a single term (Defazio, Bach, Lacoste-Julien 2014).
    share: ClassVar[float] = 1.0 / 3.0

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        plain = start(problem, u, v, self.title, self.seed)
        pool = tuple(inner_pool(problem, self.tests, self.pool, plain.generator))
        q, count = torch.zeros_like(u), len(pool)
        table = tuple(Terms.of(problem.batch(u, v, term.sample), q, term.factor) for term in pool)
        mean = Terms(torch.zeros_like(u), q, torch.zeros_like(v))
        for terms in table:
            mean = mean.plus(terms, 1.0 / count)
        state = SABAState(**{**vars(plain), "q": q}, pool=pool, table=table, mean=mean)
        return self._warmed(problem, v, state)

    def _terms(
        self, problem: BilevelProblem, v: Tensor, state: MethodState
    ) -> tuple[InnerBatch, SampledTerms, MethodState]:
        """The batch of a random member of the pool, the terms T~, and the state with the member's new row."""
        assert isinstance(state, SABAState) and state.q is not None and state.mean is not None
        count = len(state.pool)
        i = int(torch.randint(count, (), generator=state.generator))
        batch = problem.batch(state.u, v, state.pool[i].sample)
        now = Terms.of(batch, state.q, state.pool[i].factor)
        change = now.plus(state.table[i], -1.0)
        table = (*state.table[:i], now, *state.table[i + 1 :])
        reduced = state.mean.plus(change)
        seen = replace(state, table=table, mean=state.mean.plus(change, 1.0 / count))
        return batch, SampledTerms(reduced.gradient, reduced.image, lambda: reduced.cross), seen
