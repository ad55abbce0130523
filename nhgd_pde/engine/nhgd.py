"""Natural Hypergradient Descent (Kong, Chen, Zhang, Mou, arXiv 2602.10905).

for k = 0, 1, ...                                            (`minimise`)
    for t = 1, ..., T                                        (`solve_inner`)
        sample tests, take an inner step, renew the inverse A with the scores of the same tests
    q = A grad_u f, refined until its residual is below the tolerance      (`hypergradient`)
    h = grad_v f - (d2_vu g)^T q
    v moves along -h in the inner product of the outer space               (an outer method)

Where A = J^-1 K J^-T is known by factors of J, the inner step A J^T K^-1 R is J^-1 R, and of q only p = K^-1 J q =
J^-T grad_u f is needed: (d2_vu g)^T q = R_v^T p. This gives the same step and the same h, at one solve each (`newton`,
`adjoint_hypergradient`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import dot
from .bilevel import BilevelProblem, SecondOrderProblem, StateFactors
from .certificate import Sensitivity
from .curvature.average import check_saved
from .curvature.base import Curvature, belongs, within
from .hypergradient import Hypergradient, adjoint_hypergradient, hypergradient, self_adjoint_hypergradient
from .inner_loop import InnerOptions, InnerResult, InnerState, solve_inner
from .oracle import Accuracy, Response, blended, finite
from .outer.reduced_objective import Evaluation, failed_evaluation
from .plain import from_plain, to_plain
from .reduced_hessian import FisherSolves, PointwiseSolves, ReducedHessian
from .representation import gradient_of
from .scales import GradientScales, gradient_scales
from .stability import UNKNOWN, ErrorBound, Stability, StableProblem, estimated, state_error

# The value of the objective is not corrected for relative errors of the state up to this.
_EXACT = 1e-10
# Largest number of solves with earlier factors in one adjoint system, while later factors are being made.
_BACKGROUND_PATIENCE = 12


@dataclass(frozen=True)
class HypergradientOptions:
    """Options of the hypergradient.

    Attributes:
        refine: False takes q = A grad_u f as it is, the paper's estimator; its error is reported, never
            removed.
        tolerance: relative residual of the refinement; None ties it to the progress of the outer iteration.
        steps: largest number of conjugate gradient steps.
        debias: without refinement, correct the bias by the inversion of a sampled matrix (see `Average.unbiased`); the
            paper takes A grad_u f itself.
        cross: the cross derivative d2_vu g: `expected`, its `running` mean over the batches of the inner loop, or
            a number of fresh samples at the end of it (both as in the paper).
        hessian_tolerance: relative residual of the systems in a product with the reduced Hessian.
    """

    refine: bool = True
    tolerance: float | None = None
    steps: int = 300
    debias: bool = True
    cross: Literal["expected", "running"] | int = "expected"
    hessian_tolerance: float = 1e-10


@dataclass(frozen=True)
class NHGDState:
    """Data that are carried from one evaluation to the next.

    Attributes:
        inner: the state of the inner loop.
        q: solution of the last adjoint system, (S, n).
        generator: source of all random numbers.
        sensitivity: see `Evaluation`.
        point: (u, v) of the last evaluation, where the inverse is to be rebuilt before the next.
        p: the adjoint variable, (S, n), where it was solved for in place of q.
        stability: the inf-sup constant, which turns residuals into bounds of errors.
        followed: u and p have followed steps of a quadratic problem: they are as good as solved for at its iterate.
    """

    inner: InnerState
    q: Tensor | None
    generator: torch.Generator
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    point: tuple[Tensor, Tensor] | None = None
    p: Tensor | None = None
    stability: Stability = UNKNOWN
    followed: bool = False

    @property
    def u(self) -> Tensor:
        return self.inner.u

    @property
    def description(self) -> str:
        return self.inner.curvature.description

    def blend(self, other: NHGDState, share: float) -> NHGDState:
        inner = replace(other.inner, u=torch.lerp(self.u, other.u, share))
        return replace(other, inner=inner, q=blended(self.q, other.q, share), p=blended(self.p, other.p, share))


@dataclass(frozen=True)
class NHGD:
    """The method's options; an `Oracle`.

    Attributes:
        inner: the inner loop.
        curvature: the backend of the inverse Fisher information.
        hypergradient: options of the hypergradient.
        seed: seed of all random numbers.
        restart: the inverse starts from its prior at every evaluation, instead of being carried from one to the next.
    """

    inner: InnerOptions
    curvature: Curvature
    hypergradient: HypergradientOptions
    seed: int = 0
    restart: bool = False
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
        start = state.inner
        if self.restart and state.q is not None:
            start = replace(start, curvature=self.curvature.init(problem, start.u, v), held=())
        if state.point is not None and self._ahead(problem):
            start = replace(start, curvature=self.curvature.refresh(start.curvature, problem, *state.point))
        inner, error, bound, stability = self._solved_inner(problem, v, start, state, accuracy)
        u = inner.state.u
        # The inverse keeps the scores that it has absorbed, even if this evaluation fails.
        absorbed = replace(
            state.inner, curvature=inner.state.curvature, held=inner.state.held, sample=inner.state.sample
        )
        before = replace(state, inner=absorbed, stability=stability)
        if not finite(u) or math.isnan(inner.error):
            return failed_evaluation(v, inner.message or "the inner variables are not finite"), before

        h, inverse = self._hypergradient(problem, u, v, inner, state, accuracy, error, bound)
        found = u if h.of_u else h.p if h.q is None else h.q
        assert found is not None
        sensitivity = state.sensitivity.updated(problem, u, found, h.indirect, max(error, h.error))
        evaluation = Evaluation(
            v=v,
            # A state that has followed steps has the rounding errors of all of them.
            value=self._value(problem, u, v, h, inner, math.inf if state.followed else error),
            derivative=h.derivative,
            gradient=gradient_of(problem, v, h.derivative - h.indirect, h.p, h.derivative),
            state_error=error,
            adjoint_error=h.error,
            sensitivity=sensitivity.value,
            inner_steps=inner.state.steps - state.inner.steps,
            refinement_steps=h.steps,
            message=inner.message,
            warning=inner.warning,
        )
        if not evaluation.finite:
            return evaluation, before
        reached, point = replace(inner.state, curvature=inverse), None
        if self._ahead(problem) and not belongs(inverse, problem, u, v):
            point = u, v
            reached = replace(reached, curvature=self.curvature.anticipate(inverse, problem, u, v))
        return evaluation, NHGDState(reached, h.q, state.generator, sensitivity, point, h.p, stability)

    def _solved_inner(
        self, problem: BilevelProblem, v: Tensor, start: InnerState, state: NHGDState, accuracy: Accuracy
    ) -> tuple[InnerResult, float, ErrorBound | None, Stability]:
        """The inner loop to a requested error of the state; the error reached, its bound, and the inf-sup constant."""
        fixed, stability = self.inner.tolerance, state.stability
        # The error of the state may be that of the adjoint variable as well.
        sharp = min(accuracy.state, self.hypergradient.tolerance or accuracy.adjoint)
        inner: InnerResult | None = None
        while True:
            begin, tolerance = start if inner is None else inner.state, fixed or stability.residual(accuracy.state)
            followed = state.followed and inner is None
            inner = solve_inner(problem, v, begin, self.curvature, self.inner, tolerance, state.generator, followed)
            u, first = inner.state.u, begin is start
            if not finite(u) or not math.isfinite(inner.error):
                return inner, inner.error, None, state.stability
            residual = problem.residual(u, v) if inner.residual is None else inner.residual
            stability = self._stability(problem, v, inner.state, stability)
            error, bound, stability = state_error(problem, u, v, residual, inner.error, stability, sharp)
            # The loop runs once more where the constant is smaller than the goal of the residual assumed.
            missed = error > accuracy.state and inner.converged
            if not (first and missed) or fixed or self.inner.tests is not None:
                return inner, error, bound, stability

    def _stability(self, problem: BilevelProblem, v: Tensor, inner: InnerState, before: Stability) -> Stability:
        """The inf-sup constant at the end of the inner loop; it is not known where scenarios share an inverse."""
        if inner.u.shape[0] > 1:
            return before
        inverse: Any = inner.curvature

        def factors() -> StateFactors:
            if self.curvature.pointwise:
                return PointwiseSolves(inverse)
            assert isinstance(problem, StableProblem)
            return problem.state_factors(inner.u, v)

        return estimated(problem, inner.u, v, before, factors)

    def _hypergradient(
        self,
        problem: BilevelProblem,
        u: Tensor,
        v: Tensor,
        inner: InnerResult,
        state: NHGDState,
        accuracy: Accuracy,
        error: float,
        bound: ErrorBound | None,
    ) -> tuple[Hypergradient, Any]:
        """The hypergradient after the inner loop, and the inverse, which may have been renewed for it."""
        options, curvature = self.hypergradient, self.curvature
        inverse: Any = inner.state.curvature
        tolerance = (options.tolerance or accuracy.adjoint) if options.refine else None
        if curvature.pointwise and tolerance is not None and options.cross == "expected":
            found = self_adjoint_hypergradient(problem, u, v, error, tolerance, bound)
            if found is not None:
                return found, inverse
            # Factors that are made in the background are not waited for.
            patience = {"patience": _BACKGROUND_PATIENCE} if self._ahead(problem) else {}

            def renew() -> Any:
                return curvature.refresh(inverse, problem, u, v)

            h, inverse = adjoint_hypergradient(
                problem, u, v, inverse, renew, state.p, tolerance, bound=bound, near=state.followed, **patience
            )
            if h.converged:
                return h, inverse
        cross = self._cross(problem, u, v, inner, state.generator)
        return hypergradient(
            problem, u, v, inverse, state.q, tolerance, options.steps, cross, bound, options.debias
        ), inverse

    def _value(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, h: Hypergradient, inner: InnerResult, error: float
    ) -> float:
        """f(u*, v) = f(u, v) - q . g + O(|g|^2), g the inner gradient at u and H q = grad_u f; q . g = p . R.

        Without the second term values are off in the first order of the state's error and contradict the slopes,
        which the line search trusts as much.
        """
        value = problem.outer_value(u, v)
        if not self.hypergradient.refine or error <= _EXACT:
            return value
        if h.p is not None:
            return value - dot(h.p, problem.residual(u, v) if inner.residual is None else inner.residual)
        assert h.q is not None
        return value - dot(h.q, problem.inner_gradient(u, v))

    @property
    def follows(self) -> bool:
        return self.curvature.pointwise and self.inner.tests is None and self.hypergradient.refine

    def response(
        self, problem: SecondOrderProblem, v: Tensor, state: NHGDState, direction: Tensor, tolerance: float
    ) -> Response:
        return self.hessian(problem, v, state, tolerance).response(direction)

    def moved(self, state: NHGDState, response: Response, share: float) -> NHGDState:
        inner = replace(state.inner, u=state.u + share * response.state)
        p = None if state.p is None else state.p + share * response.adjoint
        return replace(state, inner=inner, p=p, followed=True)

    def hessian(
        self, problem: SecondOrderProblem, v: Tensor, state: NHGDState, tolerance: float | None = None
    ) -> ReducedHessian:
        """The Hessian of Phi at v: by factors of its point, or conjugate gradients that the inverse preconditions.

        Args:
            tolerance: relative residual of these conjugate gradients; None takes that of the options.
        """
        u, q, p = state.u, state.q, state.p
        options = self.hypergradient

        def solves() -> StateFactors:
            inverse: Any = state.inner.curvature
            if self.curvature.pointwise and not problem.quadratic:
                # There are many systems at this one point, so that an inverse made for it pays.
                inverse = problem.fisher_factors(u, v)
            if self.curvature.pointwise and u.shape[0] == 1:
                return PointwiseSolves(inverse if tolerance is None else within(inverse, tolerance))
            least = tolerance or options.hessian_tolerance
            return FisherSolves(problem, u, v, inverse.solve, least, options.steps)

        def adjoint() -> Tensor:
            if p is not None:
                return p
            assert q is not None
            return problem.adjoint_state(u, v, q)

        return ReducedHessian(problem, u, v, adjoint, solves)

    def scales(self, problem: BilevelProblem, v: Tensor, state: NHGDState, evaluation: Evaluation) -> GradientScales:
        """The natural size of the gradient of the last evaluation; takes two solves where the state is not zero."""
        q, p = state.q, state.p
        inverse: Any = state.inner.curvature

        def derivative_at(u: Tensor) -> Tensor:
            inner, outer = problem.outer_derivatives(u, v)
            if p is not None:
                adjoint = p + inverse.adjoint(inner - problem.state_product_transposed(u, v, p))
                return outer - problem.control_product_transposed(u, v, adjoint)
            assert q is not None
            solution = q + inverse.solve(inner - problem.hessian_product(u, v, q))
            return outer - problem.cross_product(u, v, solution)

        _, direct = problem.outer_derivatives(state.u, v)
        return gradient_scales(problem.outer_metric, state.u, direct, evaluation, derivative_at)

    def _ahead(self, problem: BilevelProblem) -> bool:
        """Whether the inverse is that of the last evaluation's point, rebuilt while the run goes on."""
        return self.inner.lag > 0 and self.curvature.pointwise and not problem.quadratic

    def _cross(
        self, problem: BilevelProblem, u: Tensor, v: Tensor, inner: InnerResult, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor] | None:
        """The sampled cross derivative; None for its expectation."""
        kind = self.hypergradient.cross
        if kind == "expected":
            return None
        if kind == "running":
            return inner.cross
        return problem.batch(u, v, problem.sample(int(kind), generator)).cross

    def save(self, state: NHGDState) -> dict[str, Any]:
        """The state as nested mappings, generators included."""
        inner: Any = replace(state.inner, curvature=None)  # type: ignore[arg-type]
        return {"state": to_plain(replace(state, inner=inner)), "inverse": self.curvature.save(state.inner.curvature)}

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> NHGDState:
        """The state that was saved.

        Raises:
            ValueError: it is not the state after an evaluation, or does not fit the problem.
        """
        device = problem.start()[0].device
        state = from_plain(saved["state"], device)
        if state.q is None and state.p is None:
            raise ValueError("q, p: expected the solution of one linear system, found none")
        sample = state.inner.sample
        if sample is not None:
            check_saved("tests", sample.tests, tuple(problem.sample(sample.count, torch.Generator()).tests.shape))
        curvature = self.curvature.restore(problem, from_plain(saved["inverse"], device))
        return replace(state, inner=replace(state.inner, curvature=curvature))
