"""NSBO-SAGA and MA-NSBO-SAGA: NSBO-SGD on finite sums, with draws whose variance the tables of SAGA take away.

    at (u_k, v):   d = 0, q = q_k;   T + 1 times, with terms i of the inner and j of the outer sum drawn uniformly,
        d <- d + t K^-1 (grad_u g_i - H_i d)~
        q <- q + t K^-1 ((grad_u f_j)~ - (H_i q)~)
    u_{k+1} = u_k - d,   q_{k+1} = q,   h = (grad_v f_j)~ - ((d2_vu g_i)^T q)~ at (u_{k+1}, v)

where ~ is the estimate of `saga_table`. The system of d and q shares its Hessian and its draws. With T = 0 these are
the directions of SABA with the hypergradient at the new point. MA-NSBO-SAGA takes the moving average

    m_k = (1 - alpha) m_{k-1} + alpha h_k

in place of h, as MA-SOBA does (Chen, Xiao, Balasubramanian 2023, arXiv 2306.12067).

Dong, Yang, Yao, Zhang 2025 (arXiv 2505.02101) name both methods and compare them in their experiments. The text of
their steps was not available, so that this is a reconstruction from NSBO-SGD, SABA and MA-SOBA: what is tabulated (the
residual of d as a whole), the order of the draws, alpha and the use of one step length are choices made here.

The memory is 2 d + p numbers per minibatch of the inner sum, and d + p per one of the outer sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem, InnerBatch
from ..engine.finite_sums import FiniteSumProblem, InnerTerm, OuterTerm
from ..engine.oracle import Accuracy
from .common import (
    MethodState,
    relaxation_steps,
    sampled_adjoint_error,
    sampled_state_error,
    sampled_step,
    start,
)
from .nbo import NBO, Ended, SystemSolutions
from .saga_table import Table, inner_pool


@dataclass(frozen=True)
class TabledState(MethodState):
    """The state with the terms of both sums and their tables.

    Attributes:
        inner: the minibatches of the inner sum.
        outer: those of the outer sum; empty where all of it is taken.
        system: grad_u g_i - H_i d and H_i q, (S, n).
        cross: (d2_vu g_i)^T q, (p,).
        target: df_j/du and df_j/dv, (S, n) and (p,); None where all of the outer sum is taken.
        average: (p,) the moving average of hypergradients; None before the first.
    """

    inner: tuple[InnerTerm, ...] = ()
    outer: tuple[OuterTerm, ...] = ()
    system: Table | None = None
    cross: Table | None = None
    target: Table | None = None
    average: Tensor | None = None


@dataclass(frozen=True)
class NSBOSAGA(NBO):
    """NSBO-SAGA; an `Oracle`.

    Attributes:
        steps: T; None makes it of the order of the condition number.
        tests: size of a minibatch.
        linear_step: t; None is a third of the step that is stable in mean square, as in SAGA.
        pool: number of samples where there is no finite sum; None chooses it.
        seed: seed of the draws.
    """

    steps: int | None = None
    tests: int = 64
    linear_step: float | None = None
    pool: int | None = None
    name: str = "nsbo_saga"
    summary: ClassVar[str] = "nsbo_sgd with variance reduction on a finite sum"
    stochastic: ClassVar[bool] = True

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        plain = start(problem, u, v, self.name, self.seed)
        inner = inner_pool(problem, self.tests, self.pool, plain.generator)
        outer: tuple[OuterTerm, ...] = ()
        target = None
        if isinstance(problem, FiniteSumProblem):
            outer = problem.outer_terms(self.tests)
            target = Table.of([_target(problem, u, v, term) for term in outer])
        zero = torch.zeros_like(u)
        rows = [(term.factor * problem.batch(u, v, term.sample).gradient, zero) for term in inner]
        cross = Table.of([(torch.zeros_like(v),)] * len(inner))
        return TabledState(
            **{**vars(plain), "q": zero},
            inner=tuple(inner),
            outer=outer,
            system=Table.of(rows),
            cross=cross,
            target=target,
        )

    def _solve(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, q: Tensor, state: MethodState, accuracy: Accuracy
    ) -> SystemSolutions:
        riesz, d, most, taken = problem.inner_metric.gradient, torch.zeros_like(u), self._count, 0
        residual = inner = q
        while most is None or taken < most:
            batch, i, factor = _drawn(problem, u, v, state)
            t = self.linear_step or sampled_step(batch, state.spectrum) / 3.0
            most = relaxation_steps(state.spectrum, t) if most is None else most
            inner, _, state = _outer(problem, u, v, state)
            assert isinstance(state, TabledState) and state.system is not None
            now = factor * (batch.gradient - batch.hessian(d)), factor * batch.hessian(q)
            (newton, image), table = state.system.seen(i, now)
            state, residual = replace(state, system=table), inner - image
            d, q, taken = d + t * riesz(newton), q + t * riesz(residual), taken + 1
        return SystemSolutions(d, q, sampled_adjoint_error(problem, residual, inner), 2 * taken, state)

    def _ended(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, q: Tensor, state: MethodState, accuracy: Accuracy
    ) -> Ended:
        batch, i, factor = _drawn(problem, u, v, state)
        _, direct, state = _outer(problem, u, v, state)
        assert isinstance(state, TabledState) and state.cross is not None
        (cross,), table = state.cross.seen(i, (factor * batch.cross(q),))
        error = sampled_state_error(problem, batch, u, v)
        return Ended(direct, -cross, error, replace(state, cross=table))


@dataclass(frozen=True)
class MANSBOSAGA(NSBOSAGA):
    """MA-NSBO-SAGA; an `Oracle`.

    Attributes:
        weight: alpha in (0, 1], the weight of the newest hypergradient.
    """

    weight: float = 0.1
    name: str = "ma_nsbo_saga"
    summary: ClassVar[str] = "nsbo_saga with a moving average of its hypergradients"

    def _ended(self, *arguments: Any) -> Ended:
        found = super()._ended(*arguments)
        assert isinstance(found.state, TabledState)
        newest, before = found.direct + found.indirect, found.state.average
        average = newest if before is None else torch.lerp(before, newest, self.weight)
        return found._replace(indirect=average - found.direct, state=replace(found.state, average=average))


def _drawn(problem: BilevelProblem, u: Tensor, v: Tensor, state: MethodState) -> tuple[InnerBatch, int, float]:
    """The batch of a random minibatch of the inner sum, its number and its factor."""
    assert isinstance(state, TabledState)
    i = int(torch.randint(len(state.inner), (), generator=state.generator))
    term = state.inner[i]
    return problem.batch(u, v, term.sample), i, term.factor


def _outer(problem: BilevelProblem, u: Tensor, v: Tensor, state: MethodState) -> tuple[Tensor, Tensor, MethodState]:
    """(df/du)~ and (df/dv)~ by a random minibatch of the outer sum, and the state that has seen it."""
    assert isinstance(state, TabledState)
    if state.target is None:
        return (*problem.outer_derivatives(u, v), state)
    assert isinstance(problem, FiniteSumProblem)
    j = int(torch.randint(len(state.outer), (), generator=state.generator))
    (inner, direct), table = state.target.seen(j, _target(problem, u, v, state.outer[j]))
    return inner, direct, replace(state, target=table)


def _target(problem: FiniteSumProblem, u: Tensor, v: Tensor, term: OuterTerm) -> tuple[Tensor, Tensor]:
    inner, direct = problem.outer_term_derivatives(u, v, term.numbers)
    return term.factor * inner, term.factor * direct
