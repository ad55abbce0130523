"""The exact discrete adjoint: the reference for every hypergradient.

R(u, v) = 0 by Newton's method,   J^T p = grad_u f,   h = grad_v f - R_v^T p
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Protocol

import torch
from torch import Tensor

from ..engine.bilevel import ImplicitProblem, SecondOrderProblem, StateFactors
from ..engine.certificate import Sensitivity
from ..engine.curvature.base import within
from ..engine.hypergradient import adjoint_variable
from ..engine.oracle import Accuracy, Response, blended
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from ..engine.reduced_hessian import ReducedHessian
from ..engine.representation import gradient_of
from ..engine.scales import GradientScales, gradient_scales
from ..engine.stability import UNKNOWN, ErrorBound, Stability, estimated, state_error
from ..engine.state_newton import Root, solve_from_anywhere, solved_already
from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import dot


class TwiceImplicitProblem(ImplicitProblem, SecondOrderProblem, Protocol):
    """A problem with the derivatives that the Hessian of the reduced objective needs."""


@dataclass(frozen=True)
class AdjointState:
    """The state and the adjoint variable.

    `followed`: both have followed steps of a quadratic problem, and are as good as solved for at its iterate.
    """

    u: Tensor
    q: Tensor | None = None
    description: str = "exact adjoint"
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    stability: Stability = UNKNOWN
    followed: bool = False

    @property
    def p(self) -> Tensor | None:
        """q is the adjoint variable itself."""
        return self.q

    def blend(self, other: AdjointState, share: float) -> AdjointState:
        return replace(other, u=torch.lerp(self.u, other.u, share), q=blended(self.q, other.q, share))


@dataclass(frozen=True)
class ExactDirections:
    """Newton directions by the factors of every scenario's J at one point, made when first asked for."""

    problem: ImplicitProblem
    v: Tensor
    u: Tensor

    @cached_property
    def _factors(self) -> StateFactors:
        return self.problem.state_factors(self.u, self.v)

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        return self._factors.solve(residual)

    def belongs(self, u: Tensor) -> bool:
        return self.problem.linear or torch.equal(u, self.u)

    def renewed(self, u: Tensor) -> ExactDirections:
        there = replace(self, u=u)
        _ = there._factors
        return there


@dataclass(frozen=True)
class Adjoint:
    """Options; an `Oracle`.

    Attributes:
        steps: largest number of Newton steps per state.
    """

    steps: int = 50
    name: str = "adjoint"

    def init(self, problem: ImplicitProblem, u: Tensor, v: Tensor) -> AdjointState:
        return AdjointState(u)

    def evaluate(
        self, problem: ImplicitProblem, v: Tensor, state: AdjointState, accuracy: Accuracy
    ) -> tuple[Evaluation, AdjointState]:
        try:
            root, error, bound, stability = self._solved(problem, v, state, accuracy.state)
            if bound is None:
                return failed_evaluation(v, root.message), state
            u = root.u
            inner, outer = problem.outer_derivatives(u, v)
            solve = problem.state_factors(u, v).solve_transposed
            near = state.q if state.followed else None
            found = adjoint_variable(problem, u, v, inner, solve, near, accuracy.adjoint, bound=bound)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state
        adjoint, adjoint_error = found.solution, found.error
        indirect = -problem.control_product_transposed(u, v, adjoint)
        derivative = outer + indirect
        worst = max(error, adjoint_error)
        sensitivity = state.sensitivity.updated(problem, u, adjoint, indirect, worst)
        evaluation = Evaluation(
            v=v,
            # f(u*, v) = f(u, v) - p . R + O(|R|^2). Without the second term, values contradict the slopes in the first
            # order.
            value=problem.outer_value(u, v) - dot(adjoint, root.residual),
            derivative=derivative,
            gradient=gradient_of(problem, v, outer, adjoint, derivative),
            state_error=error,
            adjoint_error=adjoint_error,
            sensitivity=sensitivity.value,
            inner_steps=root.steps,
            message=root.message,
        )
        if not evaluation.finite:
            return evaluation, state
        return evaluation, AdjointState(u, adjoint, sensitivity=sensitivity, stability=stability)

    def _solved(
        self, problem: ImplicitProblem, v: Tensor, state: AdjointState, tolerance: float
    ) -> tuple[Root, float, ErrorBound | None, Stability]:
        """The state, its error, its error bound (None where the method failed), and the inf-sup constant."""
        start, stability = state.u, state.stability
        root: Root | None = None
        while True:
            first, wanted = root is None, stability.residual(tolerance)
            directions = ExactDirections(problem, v, start)
            known = solved_already(problem, v, start, directions, wanted) if first and state.followed else None
            found = known or solve_from_anywhere(problem, v, start, directions, wanted, self.steps)
            if found.failed:
                return found, found.error, None, stability
            root = found
            start = u = root.u
            stability = estimated(problem, u, v, stability, partial(problem.state_factors, u, v))
            error, bound, stability = state_error(problem, u, v, root.residual, root.error, stability, tolerance)
            # The state is solved once more where the constant is smaller than the goal of the residual assumed.
            if not (first and root.error <= wanted and error > tolerance):
                return root, error, bound, stability

    def scales(
        self, problem: ImplicitProblem, v: Tensor, state: AdjointState, evaluation: Evaluation
    ) -> GradientScales:
        """The natural size of the gradient of the last evaluation; takes two solves where the state is not zero."""
        q = state.q
        assert q is not None

        def derivative_at(u: Tensor) -> Tensor:
            inner, outer = problem.outer_derivatives(u, v)
            factors = problem.state_factors(state.u, v)
            adjoint = q + factors.solve_transposed(inner - problem.state_product_transposed(u, v, q))
            return outer - problem.control_product_transposed(u, v, adjoint)

        _, direct = problem.outer_derivatives(state.u, v)
        return gradient_scales(problem.outer_metric, state.u, direct, evaluation, derivative_at)

    @property
    def follows(self) -> bool:
        return True

    def response(
        self, problem: TwiceImplicitProblem, v: Tensor, state: AdjointState, direction: Tensor, tolerance: float
    ) -> Response:
        return self.hessian(problem, v, state, tolerance).response(direction)

    def moved(self, state: AdjointState, response: Response, share: float) -> AdjointState:
        assert state.q is not None
        u, q = state.u + share * response.state, state.q + share * response.adjoint
        return replace(state, u=u, q=q, followed=True)

    def hessian(
        self, problem: TwiceImplicitProblem, v: Tensor, state: AdjointState, tolerance: float = 0.0
    ) -> ReducedHessian:
        """The Hessian of Phi at v, by the factors of J, with solves up to a relative error."""
        u, q = state.u, state.q
        assert q is not None
        return ReducedHessian(problem, u, v, lambda: q, lambda: within(problem.state_factors(u, v), tolerance))
