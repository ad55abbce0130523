"""Factors of a positive definite Hessian or Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linalg.counts import Counts
from ..linalg.factorisation import SingularMatrixError


@dataclass(frozen=True)
class ConvexFactors:
    """The inverse of a symmetric positive definite matrix for covectors (k, d), as `FisherFactors`.

    Attributes:
        inverse: covectors (k, d) -> vectors (k, d).
        description: a few words for people.
        counts: where solves are counted.
    """

    inverse: Callable[[Tensor], Tensor]
    description: str
    counts: Counts

    def solve(self, g: Tensor) -> Tensor:
        self.counts.solves += g.shape[0]
        return self.inverse(g)

    newton_step = adjoint = solve_transposed = solve


def convex_factors(matrix: Tensor, counts: Counts) -> ConvexFactors:
    """The Cholesky factor of a Hessian or Fisher information (d, d).

    Raises:
        SingularMatrixError: the matrix is not positive definite, or not finite.
    """
    factor = _cholesky(matrix)
    description = f"Cholesky factor of {len(matrix):,} unknowns"
    return ConvexFactors(lambda g: torch.cholesky_solve(g.T, factor).T, description, counts)


def root_factors(roots: Iterable[Tensor], rows: int, unknowns: int, ridge: float, counts: Counts) -> ConvexFactors:
    """Factors of B^T B + lambda I, of the smaller one of two matrices.

    With fewer rows than unknowns the inverse is by the push-through identity

        (B^T B + lambda I)^-1 g = (g - B^T (B B^T + lambda I)^-1 B g) / lambda .

    Args:
        roots: pieces of B, each with some of its rows and all columns.
        rows, unknowns: the shape of B.
        ridge: lambda > 0.
        counts: where solves are counted.

    Raises:
        SingularMatrixError: the matrix is not positive definite, or not finite.
    """
    if rows >= unknowns:
        matrix = torch.zeros(unknowns, unknowns, dtype=torch.float64)
        for each in roots:
            matrix.addmm_(each.T, each)
        matrix.diagonal().add_(ridge)
        return convex_factors(matrix, counts)
    root = torch.cat(list(roots))
    gram = root @ root.T
    gram.diagonal().add_(ridge)
    factor = _cholesky(gram)

    def by_rows(g: Tensor) -> Tensor:
        return (g - torch.cholesky_solve(root @ g.T, factor).T @ root) / ridge

    return ConvexFactors(by_rows, f"Cholesky factor of {rows:,} rows for {unknowns:,} unknowns", counts)


def _cholesky(matrix: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info) or not bool(torch.isfinite(factor).all()):
        raise SingularMatrixError("the Hessian of the inner loss is not positive definite")
    return factor
