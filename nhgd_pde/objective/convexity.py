"""How strongly convex an objective is in the control, by its regularisation alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linalg.riesz import RieszMap
from .terms import LinearControl, LinearState, Objective, Regularisation, Tracking

# Two products that are the same, up to their rounding errors.
_SAME = 1e-10


def convexity(objective: Objective, metric: RieszMap, like: Tensor) -> float:
    """The largest mu with Phi''(d, d) >= mu |d|^2 that follows from the regularisation, for an equation linear in u, v.

    It is known where the second derivative of the regularisation is a multiple of the inner product for each control,
    as that of a penalty in the norm of the control space is, and where the terms with the state are convex.

    Args:
        metric: the inner product |d|^2 of the control space.
        like: (p,) any control.

    Returns:
        mu, in the unit of the objective over that of |d|^2; 0 where it is not known.
    """
    convex = all(isinstance(term, Tracking | LinearState) for term in (*objective.state, *objective.relaxed))
    known = all(isinstance(term, Regularisation | LinearControl) for term in objective.control)
    if not (convex and known) or objective.joint or not objective.control:
        return 0.0
    one = torch.ones_like(like)
    # Without structure, so that equal products with it are those of equal matrices.
    other = one + torch.rand(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype).to(like.device)
    shares = _second_derivative(objective, other) / metric.covector(other[None])[0]
    # Shares that are the same for all entries of a connected block make one matrix the multiple of the other.
    found, expected = _second_derivative(objective, one), shares * metric.covector(one[None])[0]
    same = bool((found - expected).abs().sum() <= _SAME * expected.abs().sum())
    return max(float(shares.min()), 0.0) if same else 0.0


def _second_derivative(objective: Objective, d: Tensor) -> Tensor:
    return sum((term.second_derivative(d, d) for term in objective.control), torch.zeros_like(d))
