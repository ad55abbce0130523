"""Hypergradients from the limited-memory Broyden inverse of a quasi-Newton inner solver.

    A = t K^-1 + sum_i u_i v_i^T ~ H^-1, of which only t, U and V exist                 (`linalg.broyden_inverse`)
    u <- u - A grad_u E l,            then A y = s for the step s and the change y of the gradient       (T times)
    q <- q + A^T (grad_u f - H q)                                          the inverse as it is: SHINE for q = 0
    q <- q - A (H q - grad_u f),      then A y = s again                                      (k times: BPN)
    h = grad_v f - (d2_vu g)^T q

SHINE: Ramzi, Mannel, Bai, Starck, Ciuciu, Moreau 2022, arXiv 2106.00553; this is the method with k = 0. Near the end of
a linear solve A can be far from H^-1 in the directions that it has not seen. In the spirit of the paper's fallback, an
estimate that is worse than zero is replaced by one gradient step.
BPN: Hao, Ying, Su, Zhu, Song, Cheng 2023, arXiv 2209.07075, where Broyden's method solves the adjoint system. Both
systems have the same matrix, so that the pairs of the first are used in the second. Every evaluation starts without
pairs: in measurements, pairs of other points doubled the steps where H changes, and saved none where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation
from ..linalg.broyden_inverse import LowRankInverse, broyden
from .common import ROUNDING, MethodState, conclude, gradient_step, start, surveyed
from .compared_method import Compared


@dataclass(frozen=True)
class Broyden(Compared):
    """Options; an `Oracle`.

    Attributes:
        inner_steps: T, largest number of steps of the inner solver.
        steps: k, largest number of steps on the adjoint system after the estimate; 0 is SHINE.
        memory: largest number of pairs of U and V.
    """

    inner_steps: int = 50
    steps: int = 50
    memory: int = 30
    name: str = "broyden"
    summary: ClassVar[str] = "limited-memory Broyden inverse of the inner solver (SHINE, BPN)"

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> MethodState:
        return start(problem, u, v, "limited-memory Broyden inverse")

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: MethodState, accuracy: Accuracy
    ) -> tuple[Evaluation, MethodState]:
        known = surveyed(problem, state.u, v, state)
        metric, mu = problem.inner_metric, known.spectrum[0]
        solved = broyden(
            lambda u: problem.inner_gradient(u, v),
            state.u,
            LowRankInverse.scaled(gradient_step(known.spectrum), state.u),
            metric,
            lambda u: mu * max(accuracy.state, ROUNDING) * metric.norm(u),
            self.inner_steps,
            self.memory,
        )
        u = solved.solution
        inner, outer = problem.outer_derivatives(u, v)
        scale = metric.dual_norm(inner)
        found = broyden(
            lambda q: problem.hessian_product(u, v, q) - inner,
            torch.zeros_like(u) if state.q is None or self.steps == 0 else state.q,
            solved.inverse,
            metric,
            lambda q: max(accuracy.adjoint, ROUNDING) * scale,
            self.steps + 1,
            self.memory,
            transposed=True,
        )
        q = found.solution
        return conclude(
            problem,
            v,
            before=state,
            after=replace(known, u=u, q=q),
            parts=(outer, -problem.cross_product(u, v, q)),
            errors=(problem.inner_error(u, v, accuracy.state), found.length / scale if scale > 0.0 else 0.0),
            steps=(solved.steps, found.steps),
        )
