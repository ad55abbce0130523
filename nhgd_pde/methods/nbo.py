"""NBO: a Newton step on the inner problem and the linear system, which share their Hessian.

    H = H(u_k, v):   H (d, q) = (grad_u E l, grad_u f) at (u_k, v), inexactly, d from zero and q from q_k
    u_{k+1} = u_k - d,   q_{k+1} = q
    h = grad_v f - (d2_vu g)^T q_{k+1} at (u_{k+1}, v)

Dong, Yang, Yao, Zhang 2025, arXiv 2505.02101. The systems are solved by T + 1 steps of gradient descent (NBO-GD), at
most T of conjugate gradients (NBO-CG), or T + 1 of stochastic gradient descent with a fresh sample each, the same for
both systems (NSBO-SGD). The paper counts gradient steps from zero: with T = 0, u and q take one gradient step each, as
in SOBA. The error of u is squared by a step, up to that of the linear solver; q belongs to u_k, so that the error of
h is of first order in |u_k - u*| unless the step is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation
from ..linalg.conjugate_gradients import conjugate_gradients
from ..linalg.krylov import Operator
from .common import (
    MethodState,
    conclude,
    draw,
    gradient_step,
    relaxation_steps,
    sampled_adjoint_error,
    sampled_state_error,
    sampled_step,
    start,
    surveyed,
)
from .compared_method import Compared


class SystemSolutions(NamedTuple):
    """d and q, (S, n), the relative residual that q leaves, the steps taken, and the state that has taken them."""

    d: Tensor
    q: Tensor
    error: float
    steps: int
    state: MethodState


class Ended(NamedTuple):
    """df/dv and -(d2_vu g)^T q, (p,), the relative residual of the state, and the state of the method."""

    direct: Tensor
    indirect: Tensor
    state_error: float
    state: MethodState


@dataclass(frozen=True)
class NBO(Compared):
    """The common part of the methods.

    Attributes:
        steps: T, or None where the method chooses it.
        rounds: number of Newton steps per evaluation, one in the paper; after the second one q belongs to u.
    """

    steps: int | None = 10
    rounds: int = 1
    name: str = "nbo"
    seed: int = 0
    tracking: ClassVar[bool] = True

    @classmethod
    def factory(cls, tests: int = 64, **options: Any) -> Self:
        """The method with the options of a problem file, whose inner steps are the rounds."""
        return super().factory(tests, **options, rounds=options.get("inner_steps"))

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        return start(problem, u, v, self.name, self.seed)

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        u, q, steps = state.u, torch.zeros_like(state.u) if state.q is None else state.q, 0
        known = state
        for _ in range(self.rounds):
            known = surveyed(problem, u, v, known)
            solved = self._solve(problem, u, v, q, known, accuracy)
            u, q, steps, known = u - solved.d, solved.q, steps + solved.steps, solved.state
        ended = self._ended(problem, u, v, q, known, accuracy)
        length, moved = problem.inner_metric.norm(u), problem.inner_metric.norm(solved.d)
        return conclude(
            problem,
            v,
            before=state,
            after=replace(ended.state, u=u, q=q),
            parts=(ended.direct, ended.indirect),
            # q solves the system of the u before the last step.
            errors=(ended.state_error, solved.error + (moved / length if length > 0.0 else 0.0)),
            steps=(self.rounds, steps),
        )

    @property
    def _count(self) -> int | None:
        """T + 1, the number of gradient steps."""
        return None if self.steps is None else self.steps + 1

    def _solve(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, q: Tensor, state: MethodState, accuracy: Accuracy
    ) -> SystemSolutions:
        raise NotImplementedError

    def _ended(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, q: Tensor, state: MethodState, accuracy: Accuracy
    ) -> Ended:
        """The hypergradient at the new point (u, v)."""
        direct = problem.outer_derivatives(u, v)[1]
        return Ended(direct, -problem.cross_product(u, v, q), problem.inner_error(u, v, accuracy.state), state)


@dataclass(frozen=True)
class NBOCG(NBO):
    """NBO-CG; an `Oracle`."""

    name: str = "nbo_cg"
    summary: ClassVar[str] = "Newton step and linear system together, by conjugate gradients"

    def _solve(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, q: Tensor, state: MethodState, accuracy: Accuracy
    ) -> SystemSolutions:
        def hessian(w: Tensor) -> Tensor:
            return problem.hessian_product(u, v, w)

        steps, riesz = self.steps or 0, problem.inner_metric.gradient
        d = conjugate_gradients(hessian, problem.inner_gradient(u, v), riesz, None, accuracy.state, steps)
        inner = problem.outer_derivatives(u, v)[0]
        found = conjugate_gradients(hessian, inner, riesz, q, accuracy.adjoint, steps)
        return SystemSolutions(d.solution, found.solution, found.error, d.iterations + found.iterations, state)


@dataclass(frozen=True)
class NBOGD(NBO):
    """NBO-GD; an `Oracle`.

    Attributes:
        linear_step: step of gradient descent; None is the best step of the inner spectrum.
    """

    linear_step: float | None = None
    name: str = "nbo_gd"
    summary: ClassVar[str] = "Newton step and linear system together, by gradient descent"

    def _solve(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, q: Tensor, state: MethodState, accuracy: Accuracy
    ) -> SystemSolutions:
        t, g = self.linear_step or gradient_step(state.spectrum), problem.inner_gradient(u, v)
        inner, d = problem.outer_derivatives(u, v)[0], torch.zeros_like(u)
        steps, residual = self._count or 0, inner
        for _ in range(steps):
            d, q, residual = _descended(problem, lambda w: problem.hessian_product(u, v, w), g, inner, d, q, t)
        return SystemSolutions(d, q, sampled_adjoint_error(problem, residual, inner), 2 * steps, state)


@dataclass(frozen=True)
class NSBOSGD(NBO):
    """NSBO-SGD; an `Oracle`.

    Attributes:
        steps: T; None makes it of the order of the condition number.
        tests: size of every sample.
        linear_step: step of the stochastic gradient descent; None is the step that is stable in mean square.
        seed: seed of the samples.
    """

    steps: int | None = None
    tests: int = 64
    linear_step: float | None = None
    name: str = "nsbo_sgd"
    summary: ClassVar[str] = "Newton step and linear system together, by stochastic steps"
    stochastic: ClassVar[bool] = True

    def _solve(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, q: Tensor, state: MethodState, accuracy: Accuracy
    ) -> SystemSolutions:
        inner, d, steps, taken = problem.outer_derivatives(u, v)[0], torch.zeros_like(u), self._count, 0
        residual = inner
        while steps is None or taken < steps:
            batch = draw(problem, u, v, self.tests, state)
            t = self.linear_step or sampled_step(batch, state.spectrum)
            steps = relaxation_steps(state.spectrum, t) if steps is None else steps
            d, q, residual = _descended(problem, batch.hessian, batch.gradient, inner, d, q, t)
            taken += 1
        return SystemSolutions(d, q, sampled_adjoint_error(problem, residual, inner), 2 * taken, state)

    def _ended(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, q: Tensor, state: MethodState, accuracy: Accuracy
    ) -> Ended:
        batch, direct = draw(problem, u, v, self.tests, state), problem.outer_derivatives(u, v)[1]
        return Ended(direct, -batch.cross(q), sampled_state_error(problem, batch, u, v), state)


def _descended(
    problem: BilevelProblem, hessian: Operator, g: Tensor, inner: Tensor, d: Tensor, q: Tensor, t: float
) -> tuple[Tensor, Tensor, Tensor]:
    """d and q after a gradient step on both quadratics with the Hessian, and the residual that q had before."""
    residual = inner - hessian(q)
    riesz = problem.inner_metric.gradient
    return d - t * riesz(hessian(d) - g), q + t * riesz(residual), residual
