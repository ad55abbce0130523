"""The hypergradient h = grad_v f - (d2_vu g)^T H^-1 grad_u f, and the error of its linear system."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..linalg.conjugate_gradients import conjugate_gradients
from ..linalg.conjugate_residuals import preconditioned_residuals
from ..linalg.krylov import KrylovResult, Operator
from .bilevel import BilevelProblem
from .curvature.base import InverseFisher, PointwiseState, belongs
from .running_cross import CrossElsewhere
from .stability import ErrorBound

# Relative residual below which the residual updated by conjugate gradients, which falls without limit, is evaluated
# anew.
_RECURRED = 1e-11
# Number of solves with factors of another point that cost as much as a factorisation, and the largest number with
# factors of this point, which are exact unless the scenarios differ.
_PATIENCE = 3
_MOST = 30
# A bound of the error that is so many times the tolerance is not made sharp during the solution, which takes a solve:
# bounds of smooth residuals are two to ten times too large, and about this many times.
_WORTH, _LOOSE = 10.0, 4.0


@runtime_checkable
class SelfAdjointProblem(Protocol):
    """A further method of a problem whose adjoint variable may be a multiple of the inner variables.

    Where u solves J u = b with a symmetric J, and grad_u f = c b, the adjoint variable is p = c u: the compliance of a
    structure is such an f.
    """

    def adjoint_share(self, g: Tensor) -> float | None:
        """c where g (S, n) is c b, entry by entry; None where it is not, or not known to be."""
        ...


@dataclass(frozen=True)
class Hypergradient:
    """
    Attributes:
        derivative: (p,) the hypergradient, a covector.
        q: (S, n) the solution of H q = grad_u f; None where p was found without it.
        error: relative error of the adjoint variable that the residual grad_u f - H q, or grad_u f - J^T p, allows, see
            `ErrorBound`; without an inf-sup constant the relative dual norm of the residual. At or below the tolerance
            it may be a bound that is not sharp.
        steps: refinement steps taken.
        converged: the error is at most the tolerance asked for.
        indirect: (p,) the part of the derivative that goes through the inner solution.
        of_u: p is a multiple of u.
        p: (S, n) the adjoint variable, the solution of J^T p = grad_u f, where it was solved for.
    """

    derivative: Tensor
    q: Tensor | None
    error: float
    steps: int
    converged: bool
    indirect: Tensor
    p: Tensor | None = None
    of_u: bool = False


def hypergradient(
    problem: BilevelProblem,
    u: Tensor,
    v: Tensor,
    inverse: InverseFisher,
    start: Tensor | None,
    tolerance: float | None,
    iterations: int = 300,
    cross: Callable[[Tensor], Tensor] | None = None,
    bound: ErrorBound | None = None,
    debias: bool = True,
) -> Hypergradient:
    """The hypergradient at (u, v), with a certificate.

    Args:
        inverse: A, used as it is without refinement and as a preconditioner with it.
        start: q of an earlier iteration to start the refinement from.
        tolerance: refine by conjugate gradients on H until the error is at most this; None takes q = A grad_u
            f, the estimator of the paper (arXiv 2602.10905, Algorithm 1), whose error is then only measured.
        iterations: most refinement steps.
        cross: q -> (d2_vu g)^T q, where a sampled cross derivative is to be used; else its expectation.
        bound: turns residuals into bounds of errors; None: relative residuals take the place of errors.
    """
    inner, outer = problem.outer_derivatives(u, v)
    known = bound or ErrorBound(problem.inner_metric)

    def error_of(q: Tensor, residual: Tensor) -> float:
        return known.of_solution(inner, q, residual, tolerance or 0.0)

    def hessian(w: Tensor) -> Tensor:
        return problem.hessian_product(u, v, w)

    if tolerance is None and isinstance(cross, CrossElsewhere):
        q, indirect, h = cross.hypergradient(inner, outer, debias)
        return Hypergradient(h, q, error_of(q, inner - hessian(q)), 0, False, indirect)

    if tolerance is None:
        q = inverse.estimate(inner) if debias else inverse.solve(inner)
        error, steps, converged = error_of(q, inner - hessian(q)), 0, False
    else:
        found = conjugate_gradients(hessian, inner, inverse.solve, start, tolerance, iterations, error_of)
        q, error, steps = found.solution, found.error, found.iterations
        if steps == 0 or error < _RECURRED:
            error = error_of(q, inner - hessian(q))
        converged = error <= tolerance
    indirect = -(problem.cross_product(u, v, q) if cross is None else cross(q))
    return Hypergradient(outer + indirect, q, error, steps, converged, indirect)


def self_adjoint_hypergradient(
    problem: BilevelProblem, u: Tensor, v: Tensor, error: float, tolerance: float, bound: ErrorBound | None
) -> Hypergradient | None:
    """The hypergradient without an adjoint system, where J is symmetric, J u = b and grad_u f = c b; None elsewhere.

    Then p = c u, with the residual g - J p = -c R(u) of J p = g: both have the same relative error, which is that of u.
    """
    known = bound is not None and bound.beta is not None and error <= tolerance
    if not known or not isinstance(problem, SelfAdjointProblem):
        return None
    inner, outer = problem.outer_derivatives(u, v)
    share = problem.adjoint_share(inner)
    if share is None:
        return None
    p = share * u
    indirect = -problem.control_product_transposed(u, v, p)
    return Hypergradient(outer + indirect, None, error, 0, True, indirect, p, of_u=True)


def adjoint_hypergradient(
    problem: BilevelProblem,
    u: Tensor,
    v: Tensor,
    inverse: PointwiseState,
    renew: Callable[[], PointwiseState],
    start: Tensor | None,
    tolerance: float,
    patience: int = _PATIENCE,
    bound: ErrorBound | None = None,
    near: bool = False,
) -> tuple[Hypergradient, PointwiseState]:
    """The hypergradient at (u, v) by its adjoint variable, for an inverse that is made of factors of J.

    The solution q of H q = grad_u f enters the hypergradient through p = K^-1 J q alone, and with H = J^T K^-1 J

        J^T p = grad_u f,     (d2_vu g)^T q = R_v^T K^-1 J q = R_v^T p,

    so that p is found directly: with the factors where they belong to (u, v), else by conjugate residuals that the
    factors precondition, as long as this is cheaper than a factorisation; then the factors are renewed.

    Args:
        inverse: the inverse, which may belong to an earlier point.
        renew: makes the inverse anew at (u, v).
        start: p of an earlier point, used with factors that are not those of (u, v), or where it is `near`.
        tolerance: the error to reach.
        patience: number of solves, with factors of another point, that cost as much as a factorisation.
        bound: turns residuals into bounds of errors; None: relative residuals take the place of errors.
        near: the start may be the solution.

    Returns:
        The hypergradient, which is converged unless the scenarios' J are too different, and the inverse.
    """
    inner, outer = problem.outer_derivatives(u, v)

    here = belongs(inverse, problem, u, v)

    def solved(start: Tensor | None, most: int) -> KrylovResult:
        return adjoint_variable(problem, u, v, inner, inverse.adjoint, start, tolerance, most, bound, here)

    found = solved(start if near or not here else None, _MOST if here else patience)
    steps = found.iterations
    if not (found.converged or here):
        inverse, here = renew(), True
        found = solved(None, _MOST)
        steps += found.iterations
    p = found.solution
    indirect = -problem.control_product_transposed(u, v, p)
    done = Hypergradient(outer + indirect, None, found.error, steps, found.converged, indirect, p)
    return done, inverse


def adjoint_variable(
    problem: BilevelProblem,
    u: Tensor,
    v: Tensor,
    right: Tensor,
    preconditioner: Operator,
    start: Tensor | None,
    tolerance: float,
    most: int = _MOST,
    bound: ErrorBound | None = None,
    sharp: bool = True,
) -> KrylovResult:
    """The solution p of J^T p = g by conjugate residuals, unless they are too slow to reach the tolerance.

    With factors of J at the point this is one solve, followed by iterative refinement where rounding errors, as with
    coefficients that differ by many orders of magnitude, leave more than the tolerance.

    Args:
        right: g, (S, n).
        preconditioner: a solve with J^T there, or nearby.
        start: p of an earlier point; None for zero.
        tolerance: the error to reach.
        most: largest number of solves.
        bound: turns residuals into bounds of errors; None: relative residuals take the place of errors.
        sharp: an error that has missed the tolerance is made sharp.
    """
    metric = problem.inner_metric
    known = bound or ErrorBound(metric)

    def product(w: Tensor) -> Tensor:
        return problem.state_product_transposed(u, v, w)

    def error_of(p: Tensor, residual: Tensor) -> float:
        return known.of_adjoint(right, p, residual, tolerance, _WORTH)

    def hopeless(contraction: float, error: float, step: int) -> bool:
        """At this rate, more steps are needed than are left."""
        if not 0.0 < contraction < 1.0:
            return contraction != 0.0
        if not 0.0 < error < math.inf:
            return error != 0.0
        if error > _WORTH * tolerance:
            error /= _LOOSE
        return step + (math.log(tolerance) - math.log(error)) / math.log(contraction) > most

    found = preconditioned_residuals(product, right, preconditioner, metric, start, tolerance, most, error_of, hopeless)
    if found.converged or not sharp:
        return found
    error = known.of_adjoint(right, found.solution, found.residual, tolerance)
    return replace(found, error=error, converged=error <= tolerance)
