"""The hypergradient h = grad_v f - (d2_vu g)^T H^-1 grad_u f, and how well its linear system was solved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..linalg.krylov import conjugate_gradients
from .bilevel import BilevelProblem, dual_scale, relative_dual_error

# Below this the residual that conjugate gradients recur, which falls without limit, is not the true one.
_RECURRED = 1e-11


class InverseFisher(Protocol):
    """The current inverse of the Fisher information."""

    def solve(self, g: Tensor) -> Tensor:
        """A g, (S, n)."""
        ...

    def estimate(self, g: Tensor) -> Tensor:
        """A g without the bias that inverting a sampled matrix brings, (S, n)."""
        ...


@dataclass(frozen=True)
class Hypergradient:
    """
    Attributes:
        derivative: (p,) the hypergradient, a covector.
        q: (S, n) the solution of H q = grad_u f.
        error: relative dual norm of grad_u f - H q, a bound unless above the tolerance.
        steps: refinement steps taken.
        converged: the error is at most the tolerance asked for.
        indirect: (p,) the part of the derivative that goes through the inner solution.
    """

    derivative: Tensor
    q: Tensor
    error: float
    steps: int
    converged: bool
    indirect: Tensor


def hypergradient(
    problem: BilevelProblem,
    u: Tensor,
    v: Tensor,
    inverse: InverseFisher,
    start: Tensor | None,
    tolerance: float | None,
    iterations: int = 300,
    cross: Callable[[Tensor], Tensor] | None = None,
) -> Hypergradient:
    """The hypergradient at (u, v), with a certificate.

    Args:
        problem: the bilevel problem.
        u, v: inner and outer variables.
        inverse: A, used as it is without refinement and as a preconditioner with it.
        start: q of an earlier iteration to start the refinement from.
        tolerance: refine by conjugate gradients on H until the error is at most this; None takes q = A grad_u
            f, the estimator of the paper (arXiv 2602.10905, Algorithm 1), whose error is then only measured.
        iterations: most refinement steps.
        cross: q -> (d2_vu g)^T q, where a sampled cross derivative is to be used; else its expectation.
    """
    inner, outer = problem.outer_derivatives(u, v)

    def error_of(q: Tensor, residual: Tensor) -> float:
        scale = dual_scale(problem.inner_metric, inner, q)
        return relative_dual_error(problem.inner_metric, residual, scale, tolerance or 0.0)

    def hessian(w: Tensor) -> Tensor:
        return problem.hessian_product(u, v, w)

    if tolerance is None:
        q = inverse.estimate(inner)
        error, steps, converged = error_of(q, inner - hessian(q)), 0, False
    else:
        found = conjugate_gradients(hessian, inner, inverse.solve, start, tolerance, iterations, error_of)
        q, error, steps = found.solution, found.error, found.iterations
        if steps == 0 or error < _RECURRED:
            error = error_of(q, inner - hessian(q))
        converged = error <= tolerance
    indirect = -(problem.cross_product(u, v, q) if cross is None else cross(q))
    return Hypergradient(outer + indirect, q, error, steps, converged, indirect)
