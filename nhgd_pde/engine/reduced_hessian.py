"""Products with the Hessian of the reduced objective Phi(v) = f(u*(v), v), by two linear systems each.

With R(u*(v), v) = 0, J = dR/du, J^T p = f_u and h = f_v - R_v^T p, a change d of v changes

    u  by  du = -J^-1 R_v d
    p  by  dp,   J^T dp = f_uu du + f_uv d - D(J^T p)[du, d]
    h  by  Phi'' d = f_vu du + f_vv d - D(R_v^T p)[du, d] - R_v^T dp

where D(...)[du, d] is the derivative in the direction (du, d) with p held fixed (Hinze, Pinnau, Ulbrich and Ulbrich
2009, Section 1.6.5). Phi'' is symmetric at any u and p, also where these solve their systems roughly, as long as
the solves with J and with J^T are adjoint to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..linalg.conjugate_gradients import conjugate_gradients
from ..linalg.factorisation import SingularMatrixError
from ..linalg.krylov import Operator
from .bilevel import FisherFactors, SecondOrderProblem, StateFactors
from .curvature.base import PointwiseState
from .oracle import Response
from .representation import gradient_of


@dataclass(frozen=True, eq=False)
class ReducedHessian:
    """The product d (p,) -> Phi''(v) d (p,), a covector; NaN where a linear system could not be solved.

    Attributes:
        problem: the problem, which has second derivatives.
        u, v: the point; u is the inner solution as well as it is known.
        make_adjoint: returns p (S, n); called once, when first needed.
        make_factors: returns the solves with J and J^T at the point; called once, when first needed.
    """

    problem: SecondOrderProblem
    u: Tensor
    v: Tensor
    make_adjoint: Callable[[], Tensor]
    make_factors: Callable[[], StateFactors]

    def __call__(self, d: Tensor) -> Tensor:
        try:
            _, _, direct, indirect = self._changes(d)
            return direct - indirect
        except SingularMatrixError:
            return torch.full_like(d, float("nan"))

    def gauss_newton(self, d: Tensor) -> Tensor:
        """The product without the second derivatives of the equation: f_vv d + (f_uu du)^T (du/dv) and mixed terms."""
        problem, u, v = self.problem, self.u, self.v
        try:
            du = -self._factors.solve(problem.control_product(u, v, d))
            for_u, for_v = problem.outer_second_derivatives(u, v, du, d)
            return for_v - problem.control_product_transposed(u, v, self._factors.solve_transposed(for_u))
        except SingularMatrixError:
            return torch.full_like(d, float("nan"))

    def response(self, d: Tensor) -> Response:
        """The changes of u, p, h and the gradient for a problem in which these are affine in v."""
        try:
            du, dp, direct, indirect = self._changes(d)
        except SingularMatrixError:
            nan, none = torch.full_like(self.u, float("nan")), torch.full_like(d, float("nan"))
            return Response(nan, nan, none, none)
        product = direct - indirect
        return Response(du, dp, product, gradient_of(self.problem, d, direct, dp, product))

    def _changes(self, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The changes of u and p, and the product with the Hessian as a part without dp and R_v^T dp, to be
        subtracted."""
        problem, u, v, p = self.problem, self.u, self.v, self._adjoint
        du = -self._factors.solve(problem.control_product(u, v, d))
        for_u, for_v = problem.outer_second_derivatives(u, v, du, d)
        bent_u, bent_v = problem.second_derivative(u, v, p, du, d)
        dp = self._factors.solve_transposed(for_u - bent_u)
        return du, dp, for_v - bent_v, problem.control_product_transposed(u, v, dp)

    @cached_property
    def _adjoint(self) -> Tensor:
        return self.make_adjoint()

    @cached_property
    def _factors(self) -> StateFactors:
        return self.make_factors()


@dataclass(frozen=True, eq=False)
class PointwiseSolves:
    """Solves with J and J^T by an inverse that is made of their factors. Implements `StateFactors`."""

    factors: FisherFactors | PointwiseState

    def solve(self, b: Tensor) -> Tensor:
        return self.factors.newton_step(b)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self.factors.adjoint(b)


@dataclass(frozen=True, eq=False)
class FisherSolves:
    """Solves with J and J^T that need no factors of either: conjugate gradients on the Fisher information H.

    J x = b where H x = b' with b' from `inner_covector` (J^T K^-1 b in the residual form), and J^T p = g where
    H q = g and p is the adjoint variable of q (K^-1 J q). Implements `StateFactors`.

    Attributes:
        problem, u, v: where J is taken.
        inverse: g -> A g, the preconditioner.
        tolerance: relative residual, in the dual norm of the inner metric's diagonal.
        iterations: largest number of steps.
    """

    problem: SecondOrderProblem
    u: Tensor
    v: Tensor
    inverse: Operator
    tolerance: float
    iterations: int

    def solve(self, b: Tensor) -> Tensor:
        return self._conjugate_gradients(self.problem.inner_covector(self.u, self.v, b))

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self.problem.adjoint_state(self.u, self.v, self._conjugate_gradients(b))

    def _conjugate_gradients(self, g: Tensor) -> Tensor:
        def hessian(w: Tensor) -> Tensor:
            return self.problem.hessian_product(self.u, self.v, w)

        length = self.problem.inner_metric.dual_norm_estimate
        scale = length(g)

        def error(x: Tensor, residual: Tensor) -> float:
            return length(residual) / scale

        found = conjugate_gradients(hessian, g, self.inverse, None, self.tolerance, self.iterations, error)
        return found.solution if found.converged else torch.full_like(g, float("nan"))
