"""The shape of most compared methods: steps on the inner problem, then steps on the linear system at their end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..engine.bilevel import BilevelProblem, InnerBatch
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from .common import (
    MethodState,
    conclude,
    draw,
    gradient_descent,
    relaxation_steps,
    sampled_descent,
    sampled_state_error,
    sampled_step,
    start,
)
from .compared_method import Compared


class LinearSolution(NamedTuple):
    """q (S, n) with H q = grad_u f, its relative residual, the steps taken, and a sentence where they have diverged."""

    q: Tensor
    error: float
    steps: int
    message: str = ""


@dataclass(frozen=True)
class TwoLoops(Compared):
    """Gradient descent on the expected inner objective, and a solver of the linear system; an `Oracle`.

    Attributes:
        inner_steps: T, largest number of inner steps.
        steps: k, largest number of products with the Hessian.
        inner_step: step of gradient descent; None is the best step of the inner spectrum.
    """

    inner_steps: int = 200
    steps: int = 100
    inner_step: float | None = None
    title: ClassVar[str]

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        return start(problem, u, v, self.title)

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        u, taken, known = gradient_descent(problem, v, state, self.inner_steps, self.inner_step, accuracy.state)
        inner, outer = problem.outer_derivatives(u, v)
        found = self._solved(problem, u, v, inner, known, accuracy.adjoint)
        if found.message:
            return failed_evaluation(v, found.message), state
        return conclude(
            problem,
            v,
            before=state,
            after=replace(known, u=u, q=found.q),
            parts=(outer, -problem.cross_product(u, v, found.q)),
            errors=(problem.inner_error(u, v, accuracy.state), found.error),
            steps=(taken, found.steps),
        )

    def _solved(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, inner: Tensor, state: MethodState, tolerance: float
    ) -> LinearSolution:
        """The solution of H q = `inner`, from what the state knows."""
        raise NotImplementedError


@dataclass(frozen=True)
class SampledLoops(Compared):
    """Stochastic gradient steps on the inner problem, and stochastic steps on the linear system; an `Oracle`.

    Attributes:
        tests: size of every sample.
        inner_steps, steps: T and the number of linear steps; None makes them of the order of the condition number, as
            in the analysis.
        inner_step, linear_step: a and b; None is the step that is stable in mean square.
        seed: seed of the samples.
    """

    tests: int = 64
    inner_steps: int | None = None
    steps: int | None = None
    inner_step: float | None = None
    linear_step: float | None = None
    seed: int = 0
    title: ClassVar[str]
    stochastic: ClassVar[bool] = True
    tracking: ClassVar[bool] = True

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        return start(problem, u, v, self.title, self.seed)

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        u, taken, known = sampled_descent(problem, v, state, self.tests, self.inner_steps, self.inner_step)
        inner, outer = problem.outer_derivatives(u, v)
        batch = draw(problem, u, v, self.tests, state)
        step = self.linear_step or sampled_step(batch, known.spectrum)
        steps = relaxation_steps(known.spectrum, step) if self.steps is None else self.steps
        q, error = self._solved(problem, replace(known, u=u), v, inner, batch, step, steps)
        return conclude(
            problem,
            v,
            before=state,
            after=replace(known, u=u, q=q),
            parts=(outer, -batch.cross(q)),
            errors=(sampled_state_error(problem, batch, u, v), error),
            steps=(taken, steps),
        )

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
        """q with H q = `inner` after some steps on fresh samples, and an estimate of its relative residual."""
        raise NotImplementedError
