"""stocBiO: stochastic inner steps and a Neumann series of stochastic Hessians.

    u <- u - a K^-1 grad_u l(u, v; S_t)                          T times, from the last u
    r_0 = K^-1 grad_u f,   r_{j+1} = r_j - b K^-1 H(u, v; B_j) r_j          j = 0, ..., Q - 1
    q = b (r_0 + ... + r_Q)
    h = grad_v f - (d2_vu l(u, v; D))^T q

Ji, Yang, Liang 2021, arXiv 2010.07962, Algorithms 2 and 3. S_t, B_j and D are fresh samples. All have the same size
here; in the paper's analysis the size of B_j shrinks with j, in its experiments it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..engine.bilevel import BilevelProblem
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation
from .common import (
    MethodState,
    conclude,
    draw,
    relaxation_steps,
    sampled_descent,
    sampled_state_error,
    sampled_step,
    start,
)
from .compared_method import Compared


@dataclass(frozen=True)
class StocBiO(Compared):
    """Options; an `Oracle`.

    Attributes:
        tests: size of every sample.
        inner_steps, steps: T and Q; None makes them of the order of the condition number, as in the analysis.
        inner_step, linear_step: a and b; None is the step that is stable in mean square.
        seed: seed of the samples.
    """

    tests: int = 64
    inner_steps: int | None = None
    steps: int | None = None
    inner_step: float | None = None
    linear_step: float | None = None
    seed: int = 0
    name: str = "stocbio"
    summary: ClassVar[str] = "stochastic inner steps and Neumann series"
    stochastic: ClassVar[bool] = True
    tracking: ClassVar[bool] = True

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        return start(problem, u, v, "stocBiO", self.seed)

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        metric = problem.inner_metric
        u, taken, known = sampled_descent(problem, v, state, self.tests, self.inner_steps, self.inner_step)
        inner, outer = problem.outer_derivatives(u, v)
        batch = draw(problem, u, v, self.tests, state)
        b = self.linear_step or sampled_step(batch, known.spectrum)
        steps = relaxation_steps(known.spectrum, b) if self.steps is None else self.steps
        r = metric.gradient(inner)
        total, first = r, metric.norm(r)
        for _ in range(steps):
            hessian = draw(problem, u, v, self.tests, state).hessian
            r = r - b * metric.gradient(hessian(r))
            total = total + r
        q = b * total
        return conclude(
            problem,
            v,
            before=state,
            after=replace(known, u=u, q=q),
            at=(u, q),
            parts=(outer, -batch.cross(q)),
            # The sum telescopes: r_Q is the residual of K^-1 grad_u f.
            errors=(sampled_state_error(problem, batch, u, v), metric.norm(r) / first if first > 0.0 else 0.0),
            steps=(taken, steps),
        )
