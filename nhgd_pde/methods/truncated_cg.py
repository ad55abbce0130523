"""Approximate implicit differentiation with conjugate gradients (AID-CG), warm-started.

    u <- u - t K^-1 grad_u E l                       T times, from the last u
    H q = grad_u f                                   k conjugate gradient steps, from the last q
    h = grad_v f - (d2_vu g)^T q

Grazzi, Franceschi, Pontil, Salzo 2020, arXiv 2006.16218, Algorithm 2, whose T and k are fixed; with the tolerances of
HOAG (Pedregosa 2016, arXiv 1602.02355, Algorithm 1), at which both loops end earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..engine.bilevel import BilevelProblem
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation
from ..linalg.conjugate_gradients import conjugate_gradients
from .common import MethodState, conclude, gradient_descent, start
from .compared_method import Compared


@dataclass(frozen=True)
class TruncatedCG(Compared):
    """Options; an `Oracle`.

    Attributes:
        inner_steps: T.
        steps: k.
        inner_step: t; None is the best step of the inner spectrum.
    """

    inner_steps: int = 200
    steps: int = 100
    inner_step: float | None = None
    name: str = "truncated_cg"
    summary: ClassVar[str] = "implicit differentiation with truncated conjugate gradients"

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        return start(problem, u, v, "truncated conjugate gradients")

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        u, taken, known = gradient_descent(problem, v, state, self.inner_steps, self.inner_step, accuracy.state)
        inner, outer = problem.outer_derivatives(u, v)
        found = conjugate_gradients(
            lambda w: problem.hessian_product(u, v, w),
            inner,
            problem.inner_metric.gradient,
            start=state.q,
            rtol=accuracy.adjoint,
            iterations=self.steps,
        )
        q = found.solution
        return conclude(
            problem,
            v,
            before=state,
            after=replace(known, u=u, q=q),
            at=(u, q),
            parts=(outer, -problem.cross_product(u, v, q)),
            errors=(problem.inner_error(u, v, accuracy.state), found.error),
            steps=(taken, found.iterations),
        )
