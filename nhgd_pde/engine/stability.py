"""The inf-sup constant, which turns residuals into bounds of errors.

With J = dR/du and the inner product K of the inner space

    beta = min_w |J w|_{K^-1} / |w|_K
    |u - u*|_K <= |R(u)|_{K^-1} / beta,     |p - p*|_K <= |g - J^T p|_{K^-1} / beta

for the state of a linear equation, for that of a nonlinear one near its solution, and for the adjoint variable (Xu and
Zikatanov 2003, Numer. Math. 94). beta is the smallest singular value of K^-1/2 J K^-1/2, and 1 / beta^2 the largest
eigenvalue of J^-1 K J^-T K, which is symmetric in the K-product: a few Lanczos steps with factors of J find it, with
two solves each, and the more quickly the smaller beta is. Where J is symmetric, so is J^-1 K, whose eigenvalue of
largest modulus is 1 / beta: one solve a step.

Where J is positive definite and K is J at another control, errors are measured in the energy norm of J itself, in which
beta is one: |u - u*|_J = |R(u)|_{J^-1}, a solve with the factors of J at the point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from ..linalg.lanczos import largest_eigenpair
from ..linalg.riesz import RieszMap
from ..linalg.safe_lengths import paired_length, quotient
from .bilevel import BilevelProblem, StateFactors, dual_scale, relative_dual_error, rough_vector

# The relative error of 1 / beta, judged by the residual, that ends the Lanczos method after one, two and three steps,
# which are all. This error is added to 1 / beta: beta is between 0.8 and 1.15 times the inf-sup constant.
_GOALS = 0.05, 0.25, math.inf
# J counts as changed where its products with two vectors have changed by this share of themselves.
_CHANGED = 0.1
# Share of a rough vector that is added to the last singular vector, so that another singular vector can be found.
_FRESH = 0.1
# Smallest relative residual that is requested: smaller ones are rounding errors.
_LEAST_RESIDUAL = 1e-15


@dataclass(frozen=True)
class JacobianKind:
    """Properties of J that are known without computing it.

    Attributes:
        constant: J depends on neither u nor v.
        symmetric: J = J^T.
        gram: J = K, so that the inf-sup constant is one.
        hessian: J is positive definite, and the Hessian of the inner objective is J instead of J^T K^-1 J.
    """

    constant: bool = False
    symmetric: bool = False
    gram: bool = False
    hessian: bool = False


@runtime_checkable
class StableProblem(Protocol):
    """Further methods of a bilevel problem, with which its residuals are turned into bounds of errors."""

    @property
    def jacobian_kind(self) -> JacobianKind: ...

    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors: ...

    def energy(self, u: Tensor, v: Tensor) -> tuple[RieszMap, float]:
        """The inner product of a positive definite J, by its factors, and the norm of u together with the
        coefficients that v fixes."""
        ...


@dataclass(frozen=True)
class Stability:
    """The inf-sup constant as far as it is known.

    Attributes:
        value: beta; 1 where nothing is known, so that residuals take the place of errors. Where errors are measured in
            the energy norm: the ratio of the last residual to its error, if the error missed its goal.
        known: beta is an estimate, or known to be 1.
        vector: (S, n) w of length one with the smallest |J w|; None where no solves were needed.
        images: J w, and J times a rough vector, by which a change of J shows.
    """

    value: float = 1.0
    known: bool = False
    vector: Tensor | None = None
    images: tuple[Tensor, Tensor] | None = None

    def residual(self, error: float) -> float:
        """The relative residual that makes for a relative error."""
        return max(error * self.value, min(error, _LEAST_RESIDUAL))


# The stability of a problem whose inf-sup constant has not been estimated.
UNKNOWN = Stability()


@dataclass(frozen=True)
class ErrorBound:
    """Turns residuals into bounds of relative errors, at one point.

    Attributes:
        metric: the inner product in which errors are measured: K, or J where it is positive definite.
        beta: the inf-sup constant in this inner product; None where it is not known: residuals then take the place of
            errors.
        dual: the solution q of H q = g is the adjoint variable itself.
    """

    metric: RieszMap
    beta: float | None = None
    dual: bool = False

    def of_adjoint(self, g: Tensor, p: Tensor, residual: Tensor, tolerance: float, worth: float = math.inf) -> float:
        """Bound of the error of p with J^T p = g up to a residual: |residual| / (beta |p|), or relative to |g|.

        See `relative_dual_error` for `tolerance` and `worth`.
        """
        scale = dual_scale(self.metric, g, p) if self.beta is None else self.beta * self.metric.norm(p)
        return relative_dual_error(self.metric, residual, scale, tolerance, worth)

    def of_solution(self, g: Tensor, q: Tensor, residual: Tensor, tolerance: float) -> float:
        """Bound of the error of the adjoint variable that belongs to q, with H q = g up to a residual."""
        if self.beta is None or self.dual:
            return self.of_adjoint(g, q, residual, tolerance)
        # p = K^-1 J q has the norm |p|_K^2 = q . J^T K^-1 J q.
        return relative_dual_error(self.metric, residual, self.beta * paired_length(q, g - residual), tolerance)


def state_error(
    problem: BilevelProblem,
    u: Tensor,
    v: Tensor,
    residual: Tensor,
    error: float,
    stability: Stability,
    tolerance: float,
) -> tuple[float, ErrorBound, Stability]:
    """The bound of the relative error of u, the bound for adjoint variables at (u, v), and the stability.

    Args:
        residual: R(u, v).
        error: relative dual norm of the residual, as `BilevelProblem.residual_error` returns it.
        tolerance: bounds below the tolerance need not be sharp.
    """
    if not stability.known or not isinstance(problem, StableProblem):
        return error, ErrorBound(problem.inner_metric), stability
    kind = problem.jacobian_kind
    if kind.gram or not kind.hessian:
        return error / stability.value, ErrorBound(problem.inner_metric, stability.value, kind.hessian), stability
    # K is J at another control: its inf-sup constant would be determined by the smallest coefficient anywhere.
    metric, length = problem.energy(u, v)
    found = relative_dual_error(metric, residual, length, tolerance)
    ratio = error / found if found > tolerance else 1.0
    return found, ErrorBound(metric, 1.0, True), replace(stability, value=min(ratio, 1.0))


def estimated(
    problem: BilevelProblem, u: Tensor, v: Tensor, before: Stability, factors: Callable[[], StateFactors]
) -> Stability:
    """The inf-sup constant at (u, v), which is the one known before while J has hardly changed.

    The first estimate takes the solves of a few Lanczos steps, later ones start from its singular vector.

    Args:
        problem: the bilevel problem; nothing is known unless it is a `StableProblem`.
        before: the stability at an earlier point.
        factors: returns the factors of J at the point, or near it.

    Raises:
        SingularMatrixError: J is singular in double precision.
    """
    if not isinstance(problem, StableProblem):
        return before
    kind = problem.jacobian_kind
    if kind.gram or kind.hessian:
        several = kind.hessian and u.shape[0] > 1
        return before if several or before.known else Stability(known=True)
    if (before.known and kind.constant) or _lasts(problem, u, v, before):
        return before
    value, vector = _smallest_singular_pair(
        problem.inner_metric, rough_vector(u), before.vector, factors(), kind.symmetric
    )
    if not (math.isfinite(value) and value > 0.0):
        raise SingularMatrixError("the linearised state equation is singular in double precision")
    return Stability(value, True, vector, _images(problem, u, v, vector))


def _images(problem: BilevelProblem, u: Tensor, v: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """J times a vector, and J times a rough vector."""
    return problem.state_product(u, v, vector), problem.state_product(u, v, rough_vector(u))


def _lasts(problem: BilevelProblem, u: Tensor, v: Tensor, before: Stability) -> bool:
    """Whether the products of J at (u, v) are nearly those at the point where the stability was estimated."""
    if before.vector is None or before.images is None:
        return False
    images = _images(problem, u, v, before.vector)
    return not any(_differ(problem.inner_metric, new, old) for new, old in zip(images, before.images, strict=True))


def _smallest_singular_pair(
    metric: RieszMap, rough: Tensor, before: Tensor | None, solves: StateFactors, symmetric: bool
) -> tuple[float, Tensor]:
    """The smallest singular value of J in the inner product, and its vector of length one, by the Lanczos method.

    `before` is the singular vector at an earlier point. Where J is symmetric, one solve a step is enough.
    """

    def inverse(x: Tensor) -> Tensor:
        return solves.solve(metric.covector(x))

    def squared(x: Tensor) -> Tensor:
        return inverse(solves.solve_transposed(metric.covector(x)))

    start, share = (solves.solve(rough), 1.0) if before is None else (before, _FRESH)
    start = start / metric.norm(start) + share * rough / metric.norm(rough)
    # An error of 1 / beta is one of twice this size of its square.
    goals = [goal if symmetric else (2.0 + goal) * goal for goal in _GOALS]
    found, vector, _ = largest_eigenpair(inverse if symmetric else squared, metric, start, goals)
    return quotient(1.0, found if symmetric else math.sqrt(found)), vector


def _differ(metric: RieszMap, new: Tensor, old: Tensor) -> bool:
    return not metric.dual_norm_estimate(new - old) <= _CHANGED * metric.dual_norm_estimate(old)
