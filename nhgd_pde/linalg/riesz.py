"""Riesz maps: inner products of spaces, and the maps from their duals back to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from .conjugate_gradients import conjugate_gradients
from .counts import Counts
from .products import BlockDiagonalMatrix, repeated
from .safe_lengths import dot, length
from .sparse import SparseMatrix


class RieszMap:
    """The Riesz map x -> K x of a space with Gram matrix K, and its inverse.

    Vectors are rows: (k, n). A covector (derivative, residual) becomes a vector (gradient, correction) by
    `gradient`.

    Args:
        matrix: K, symmetric positive definite.
        solve: covectors (k, n) -> K^-1 covectors.
        diagonal: K is diagonal, so that a projection onto bounds acts node by node.
    """

    def __init__(self, matrix: SparseMatrix, solve: Callable[[Tensor], Tensor], diagonal: bool = False) -> None:
        self.matrix, self._solve, self.diagonal = matrix, solve, diagonal

    def covector(self, x: Tensor) -> Tensor:
        """K x."""
        return self.matrix.mv(x)

    def gradient(self, derivative: Tensor) -> Tensor:
        """K^-1 derivative: the vector that represents a covector."""
        return self._solve(derivative)

    def inner(self, x: Tensor, y: Tensor) -> float:
        """x . K y, summed over the rows."""
        return dot(x, self.covector(y))

    def norm(self, x: Tensor) -> float:
        """sqrt(x . K x), summed over the rows; not finite where x is not finite."""
        return length(x, self.covector, self._diagonal)

    def dual_norm(self, derivative: Tensor) -> float:
        """The norm of a covector; takes one solve per row."""
        return length(derivative, self.gradient)

    def dual_norm_bound(self, derivative: Tensor) -> float:
        """A bound of the norm of a covector from above, without a solve.

        |r|_{K^-1} <= |r|_{D^-1} / sqrt(lambda), D = diag(K), lambda the smallest eigenvalue of D^-1 K. It is
        sharp for smooth r only, and loose by up to sqrt(cond(D^-1 K)), of order 1/h, for oscillating r such
        as rounding errors.
        """
        least = self._smallest_eigenvalue
        return self.dual_norm_estimate(derivative) / math.sqrt(least) if least > 0.0 else math.inf

    def dual_norm_estimate(self, derivative: Tensor) -> float:
        """|derivative|_{D^-1}, D = diag(K), without a solve: within a factor of two for a P1 mass matrix."""
        return length(derivative, lambda r: r / self._diagonal)

    @cached_property
    def _diagonal(self) -> Tensor:
        return self.matrix.diagonal()

    @cached_property
    def smoothest(self) -> Tensor:
        """(1, n) a vector close to the eigenvector of D^-1 K with the smallest eigenvalue; D = diag(K).

        It takes four inverse iterations. They start from a constant in the unknowns D^1/2 x, which gives every node the
        same weight, however much the coefficients differ.
        """
        d = self._diagonal
        x = d.rsqrt()[None]
        for _ in range(4):
            x = self.gradient(d * x)
            x = x / x.abs().max()
        return x

    @cached_property
    def _smallest_eigenvalue(self) -> float:
        """A lower bound of the smallest eigenvalue of D^-1 K: half the Rayleigh quotient of `smoothest`.

        The quotient converges twice as fast as the vector; the factor of one half covers the remaining error.
        """
        if self.diagonal:
            return 1.0
        x = self.smoothest
        return 0.5 * self.inner(x, x) / dot(x, self._diagonal * x)


class ExactRieszMap(RieszMap):
    """A Riesz map whose bounds of the norms of covectors are the norms themselves, which take a solve each."""

    def dual_norm_bound(self, derivative: Tensor) -> float:
        return self.dual_norm(derivative)


def diagonal_riesz_map(weights: Tensor, matrix: SparseMatrix) -> RieszMap:
    """The Riesz map of a diagonal Gram matrix with entries `weights` (n,) > 0."""
    return RieszMap(matrix, lambda derivative: derivative / weights, diagonal=True)


def mass_riesz_map(matrix: SparseMatrix, counts: Counts, rtol: float = 1e-13) -> RieszMap:
    """The Riesz map of a mass matrix, inverted by conjugate gradients with its diagonal.

    The diagonally scaled mass matrix of a simplicial P1 mesh has condition number at most d + 2 whatever the
    mesh (Wathen 1987, IMA J. Numer. Anal. 7), and that of a Q1 mesh of parallelepipeds at most 3^d, so that some
    20 to 50 cheap steps are enough and no factors are stored. Where they are not, the gradient is NaN.
    """
    inverse = 1.0 / matrix.diagonal()

    def solve(derivative: Tensor) -> Tensor:
        counts.riesz_solves += derivative.shape[0]
        # All rows are solved for in one iteration. Each is scaled to length one, so that none is lost among larger
        # ones; rows that are zero or not finite are left out.
        largest = derivative.abs().amax(1, keepdim=True)
        unit = torch.where((largest > 0.0) & largest.isfinite(), derivative / largest, 0.0)
        lengths = largest * (unit.square() * inverse).sum(1, keepdim=True).sqrt()
        scaled = torch.where((lengths > 0.0) & lengths.isfinite(), derivative / lengths, 0.0)
        found = conjugate_gradients(matrix.mv, scaled, lambda r: r * inverse, rtol=rtol, iterations=200)
        if not found.converged:
            return torch.full_like(derivative, math.nan)
        return torch.where(lengths.isfinite(), lengths * found.solution, math.nan)

    return RieszMap(matrix, solve)


def block_riesz_map(parts: Sequence[tuple[RieszMap, int, float]]) -> RieszMap:
    """The inner product of a product of spaces, from (inner product, number of copies, weight) of each."""
    if len(parts) == 1 and parts[0][1:] == (1, 1.0):
        return parts[0][0]
    blocks = [repeated(part.matrix, copies, weight) for part, copies, weight in parts]
    matrix = blocks[0] if len(blocks) == 1 else BlockDiagonalMatrix(blocks)
    sizes = [copies * part.matrix.shape[0] for part, copies, _ in parts]

    def solve(derivative: Tensor) -> Tensor:
        found = []
        for piece, (part, _, weight) in zip(torch.split(derivative, sizes, dim=1), parts, strict=True):
            single = part.gradient(piece.reshape(-1, part.matrix.shape[0]))
            found.append(single.reshape(piece.shape) / weight)
        return torch.cat(found, dim=1)

    return RieszMap(matrix, solve, diagonal=all(part.diagonal for part, _, _ in parts))
