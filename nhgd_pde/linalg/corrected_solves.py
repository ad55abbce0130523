"""Iterative refinement: a solution of a linear system corrected by solves for its residual."""

from __future__ import annotations

import torch
from torch import Tensor

from .krylov import Operator

# Relative residual from which on a solution is not corrected. Factors reach it at once.
_GOAL = 1e-10
# A correction is worth its solve where it reduces the residual by this factor.
_PROGRESS = 0.5


def refined(solve: Operator, product: Operator, b: Tensor) -> tuple[Tensor, Tensor]:
    """The solutions x of A x = b for every row of (k, n), and the residuals b - A x.

    Args:
        solve: b (k, n) -> A^-1 b, which may be rough.
        product: x (k, n) -> A x.
    """
    sizes = b.norm(dim=1)

    def largest(left: Tensor) -> float:
        """The largest residual of a row, relative to its right-hand side."""
        return float((left.norm(dim=1) / torch.where(sizes > 0.0, sizes, 1.0)).amax()) if len(left) else 0.0

    x = solve(b)
    left = b - product(x)
    error = largest(left)
    while error > _GOAL:
        further = x + solve(left)
        rest = b - product(further)
        after = largest(rest)
        if not after <= _PROGRESS * error:
            break
        x, left, error = further, rest, after
    return x, left
