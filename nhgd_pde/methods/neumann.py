"""The hypergradient by a truncated Neumann series.

    u <- u - t K^-1 grad_u E l                                   T times, from the last u
    q = t sum_{j=0}^{k} (I - t K^-1 H)^j K^-1 grad_u f
    h = grad_v f - (d2_vu g)^T q

Lorraine, Vicol, Duvenaud 2020, arXiv 1911.02590, Algorithm 3 (NeumannHypergrad); the error of q is that of k + 1
gradient steps from zero, (1 - t mu)^(k + 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..engine.bilevel import BilevelProblem
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from .common import MethodState, conclude, gradient_descent, gradient_step, start
from .compared_method import Compared


@dataclass(frozen=True)
class Neumann(Compared):
    """Options; an `Oracle`.

    Attributes:
        inner_steps: T.
        steps: k, products with the Hessian.
        inner_step, linear_step: t of both loops; None is the best step of the inner spectrum.
    """

    inner_steps: int = 200
    steps: int = 100
    inner_step: float | None = None
    linear_step: float | None = None
    name: str = "neumann"
    summary: ClassVar[str] = "implicit differentiation with a truncated Neumann series"

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        return start(problem, u, v, "truncated Neumann series")

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        metric = problem.inner_metric
        u, taken, known = gradient_descent(problem, v, state, self.inner_steps, self.inner_step, accuracy.state)
        inner, outer = problem.outer_derivatives(u, v)
        t = self.linear_step or gradient_step(known.spectrum)
        q = term = t * metric.gradient(inner)
        # K^-1 (grad_u f - H q) is 1/t times the first term left out, so that the last term used bounds it.
        first, error, steps = metric.norm(term), 1.0 if term.any() else 0.0, 0
        while steps < self.steps and error > accuracy.adjoint:
            term = term - t * metric.gradient(problem.hessian_product(u, v, term))
            q = q + term
            error, steps = metric.norm(term) / first, steps + 1
        if error > 1.0:
            return failed_evaluation(v, f"the Neumann series with step {t:.1e} diverges"), state
        return conclude(
            problem,
            v,
            before=state,
            after=replace(known, u=u, q=q),
            at=(u, q),
            parts=(outer, -problem.cross_product(u, v, q)),
            errors=(problem.inner_error(u, v, accuracy.state), error),
            steps=(taken, steps),
        )
