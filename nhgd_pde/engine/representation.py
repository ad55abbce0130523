"""The gradient that represents a derivative, where a problem knows most of it without a solve."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from ..linalg.safe_lengths import dot
from .bilevel import BilevelProblem


@runtime_checkable
class RepresentingProblem(Protocol):
    """A further method of a problem whose R_v may be a part of the inner product of its outer space."""

    def represented(self, w: Tensor) -> Tensor | None:
        """The Riesz representative (p,) of R_v^T w, w (S, n), where it is known without a solve; None elsewhere."""
        ...


def gradient_of(problem: BilevelProblem, v: Tensor, direct: Tensor, p: Tensor | None, derivative: Tensor) -> Tensor:
    """The Riesz representative (p,) of a derivative direct - R_v^T p.

    Where the direct part is a multiple of the inner product with v, as of a penalty in the same norm, and the problem
    knows the representative of R_v^T p, the inner product is not inverted. Elsewhere these are a start for its solve.

    Args:
        v: (p,) the point, or the direction for a product with the Hessian.
        direct: (p,) the part without the adjoint variable.
        p: (S, n) the adjoint variable, or its change; None where it is not known.
        derivative: (p,).
    """
    metric = problem.outer_metric
    known = problem.represented(p) if p is not None and isinstance(problem, RepresentingProblem) else None
    if known is None:
        return metric.gradient(derivative[None])[0]
    length = dot(v, metric.covector(v[None])[0])
    guess = -known if length == 0.0 else (dot(v, direct) / length) * v - known
    return metric.gradient(derivative[None], guess[None])[0]
