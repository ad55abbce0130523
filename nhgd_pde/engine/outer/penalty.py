"""The part of the Hessian of the reduced objective that takes no linear system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..bilevel import OuterProblem, rough_vector

# The curvature of a mass matrix along a rough vector, as a share of that of the sums of its rows: 2/3 for linear
# elements in one dimension, and 8/27 for trilinear ones. The largest share allows for rounding errors.
_LEAST, _MOST = 0.1, 1.0 + 1e-10


@runtime_checkable
class PenalisedProblem(Protocol):
    """A further method of a problem with terms that depend on the outer variables alone."""

    def penalty_product(self, d: Tensor) -> Tensor:
        """The product (p,), a covector, of the second derivative of these terms with d (p,).

        The second derivative is constant where the problem is quadratic.
        """
        ...


@dataclass(frozen=True, eq=False)
class Penalty:
    """The second derivative D of the terms of the outer variables alone, which is like a mass matrix.

    Attributes:
        product: d (p,) -> D d (p,), a covector.
        lumped: (p,) the sums of the rows of D, all positive; D is at most the diagonal matrix of them.
    """

    product: Callable[[Tensor], Tensor]
    lumped: Tensor


def penalty_of(problem: OuterProblem) -> Penalty | None:
    """The penalty of a quadratic problem; None where there is none, or D is not like a mass matrix.

    A matrix with no negative entry is at most the diagonal matrix of the sums of its rows (Gershgorin). Along the rough
    direction that is tested, a penalty of the gradient is far larger, and one of a filtered variable far smaller.
    """
    if not (problem.quadratic and isinstance(problem, PenalisedProblem)):
        return None
    start = problem.start()[1]
    lumped = problem.penalty_product(torch.ones_like(start))
    if not bool(((lumped > 0.0) & torch.isfinite(lumped)).all()):
        return None
    rough = rough_vector(start)
    curvature, most = rough @ problem.penalty_product(rough), rough @ (lumped * rough)
    return Penalty(problem.penalty_product, lumped) if bool(_LEAST * most <= curvature <= _MOST * most) else None
