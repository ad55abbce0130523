"""Natural Hypergradient Descent (Kong, Chen, Zhang, Mou, arXiv 2602.10905).

for k = 0, 1, ...                                            (`minimise`)
    for t = 1, ..., T                                        (`solve_inner`)
        sample tests, take an inner step, renew the inverse A with the scores of the same tests
    q = A grad_u f, refined until its residual is below the tolerance      (`hypergradient`)
    h = grad_v f - (d2_vu g)^T q
    v moves along -h in the inner product of the outer space               (an outer method)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from .bilevel import BilevelProblem
from .certificate import Sensitivity
from .curvature.base import Curvature
from .hypergradient import hypergradient
from .inner import InnerOptions, InnerState, solve_inner
from .minimise import Accuracy, finite
from .outer.base import Evaluation, failed_evaluation


@dataclass(frozen=True)
class HypergradientOptions:
    """Options of the hypergradient.

    Attributes:
        refine: False takes q = A grad_u f as it is, the paper's estimator; its error is reported, never
            removed.
        tolerance: relative residual of the refinement; None ties it to the progress of the outer iteration.
        steps: most conjugate gradient steps.
    """

    refine: bool = True
    tolerance: float | None = None
    steps: int = 300


@dataclass(frozen=True)
class NHGDState:
    """What is carried from one evaluation to the next."""

    inner: InnerState
    q: Tensor | None
    generator: torch.Generator
    sensitivity: Sensitivity = field(default_factory=Sensitivity)

    @property
    def u(self) -> Tensor:
        return self.inner.u

    @property
    def description(self) -> str:
        return self.inner.curvature.description

    def blend(self, other: NHGDState, share: float) -> NHGDState:
        inner = replace(other.inner, u=torch.lerp(self.u, other.u, share))
        q = other.q if self.q is None or other.q is None else torch.lerp(self.q, other.q, share)
        return replace(other, inner=inner, q=q)


@dataclass(frozen=True)
class NHGD:
    """The method's options; an `Oracle`.

    Attributes:
        inner: the inner loop.
        curvature: the backend of the inverse Fisher information.
        hypergradient: its refinement.
        seed: of every random number.
    """

    inner: InnerOptions
    curvature: Curvature
    hypergradient: HypergradientOptions
    seed: int = 0
    name: str = "nhgd"

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> NHGDState:
        generator = torch.Generator().manual_seed(self.seed)
        return NHGDState(InnerState(u, self.curvature.init(problem, u, v)), None, generator)

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: NHGDState, accuracy: Accuracy
    ) -> tuple[Evaluation, NHGDState]:
        """One evaluation of Phi and its hypergradient at v; a singular linearisation makes it a failed one."""
        try:
            return self._evaluate(problem, v, state, accuracy)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state

    def _evaluate(
        self, problem: BilevelProblem, v: Tensor, state: NHGDState, accuracy: Accuracy
    ) -> tuple[Evaluation, NHGDState]:
        inner = solve_inner(
            problem,
            v,
            state.inner,
            self.curvature,
            self.inner,
            self.inner.tolerance or accuracy.state,
            state.generator,
        )
        u = inner.state.u
        # What the inverse has absorbed stays in it, whatever becomes of this evaluation.
        before = replace(state, inner=replace(state.inner, curvature=inner.state.curvature))
        if not finite(u):
            return failed_evaluation(v, inner.message or "the inner variables are not finite"), before

        tolerance = (self.hypergradient.tolerance or accuracy.adjoint) if self.hypergradient.refine else None
        h = hypergradient(problem, u, v, inner.state.curvature, state.q, tolerance, self.hypergradient.steps)

        sensitivity = state.sensitivity.updated(problem, u, h.q, h.indirect, max(inner.error, h.error))
        gradient = problem.outer_metric.gradient(h.derivative[None])[0]
        evaluation = Evaluation(
            v=v,
            value=problem.outer_value(u, v),
            derivative=h.derivative,
            gradient=gradient,
            state_error=inner.error,
            adjoint_error=h.error,
            sensitivity=sensitivity.value,
            inner_steps=inner.state.steps - state.inner.steps,
            refinement_steps=h.steps,
            message=inner.message,
        )
        return evaluation, NHGDState(inner.state, h.q, state.generator, sensitivity) if evaluation.finite else before
