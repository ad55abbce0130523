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
from .safe_lengths import dot, length, magnitude, paired_length
from .sparse import SparseMatrix

# The smallest eigenvalue is known well enough where an inverse iteration lowers its estimate by less than this factor.
_SETTLED = 0.9
# The first inverse iteration is enough where it lowers the estimate by less than this factor, to a small share of one,
# the mean of the eigenvalues: a constant may be near the eigenvector of a large one, and stay there.
_NEARLY, _SMALL = 0.6, 0.1
# Inverse iterations from a rough vector are made where the estimate is above this; their number.
_LARGE, _ROUGH_STEPS = 0.4, 3
# Squares of lengths that need no scaling.
_USUAL = 1e-200, 1e200


class RieszMap:
    """The Riesz map x -> K x of a space with Gram matrix K, and its inverse.

    Vectors are rows: (k, n). A covector (derivative, residual) becomes a vector (gradient, correction) by
    `gradient`.

    Args:
        matrix: K, symmetric positive definite.
        solve: covectors (k, n) -> K^-1 covectors.
        diagonal: K is diagonal, so that a projection onto bounds acts node by node.
        error: gives a bound of the relative error of `solve` in the norm of K; None where it is a rounding error.
        overestimate: r (k, n) -> P r with r . K^-1 r <= r . P r, which is cheaper than a solve; None, or a result that
            is None, where there is no such P.
        improve: covectors and guesses (k, n) -> K^-1 covectors, where a good guess saves work.
        rough: covectors (k, n) and a relative error -> K^-1 covectors up to it, where that saves work.
    """

    def __init__(
        self,
        matrix: SparseMatrix,
        solve: Callable[[Tensor], Tensor],
        diagonal: bool = False,
        error: Callable[[], float] | None = None,
        overestimate: Callable[[Tensor], Tensor | None] | None = None,
        improve: Callable[[Tensor, Tensor], Tensor] | None = None,
        rough: Callable[[Tensor, float], Tensor] | None = None,
    ) -> None:
        self.matrix, self._solve, self.diagonal, self._improve = matrix, solve, diagonal, improve
        self._error, self._overestimate, self._rough = error, overestimate, rough

    def covector(self, x: Tensor) -> Tensor:
        """K x."""
        return self.matrix.mv(x)

    def gradient(self, derivative: Tensor, guess: Tensor | None = None) -> Tensor:
        """K^-1 derivative: the vector that represents a covector; a guess of it may save work."""
        if guess is None or self._improve is None:
            return self._solve(derivative)
        return self._improve(derivative, guess)

    def rough_gradient(self, derivative: Tensor, rtol: float) -> Tensor:
        """K^-1 derivative up to a relative error, or better."""
        return self._solve(derivative) if self._rough is None else self._rough(derivative, rtol)

    def inner(self, x: Tensor, y: Tensor) -> float:
        """x . K y, summed over the rows."""
        return dot(x, self.covector(y))

    def norm(self, x: Tensor) -> float:
        """sqrt(x . K x), summed over the rows; not finite where x is not finite."""
        # Squares in this range have neither overflowed nor lost terms.
        square = self.inner(x, x)
        return math.sqrt(square) if _USUAL[0] < square < _USUAL[1] else length(x, self.covector, lambda: self._diagonal)

    def dual_norm(self, derivative: Tensor) -> float:
        """The norm of a covector; takes one solve per row. It is a bound from above where solves have errors.

        With a relative error e of x = K^-1 r the square r . x is at least (1 - e) times that of the norm.
        """
        found = length(derivative, self.gradient)
        if self._error is None:
            return found
        error = self._error()
        # A solve that may be wrong altogether bounds nothing.
        return math.inf if error >= 1.0 else found / math.sqrt(1.0 - error)

    def dual_norm_bound(self, derivative: Tensor) -> float:
        """A bound of the norm of a covector from above, without a solve.

        Where the solver has an approximate inverse, such as a multigrid cycle, the bound is sharp to a factor of about
        1.5. Elsewhere it comes from the diagonal:

        |r|_{K^-1} <= |r|_{D^-1} / sqrt(lambda), D = diag(K), lambda the smallest eigenvalue of D^-1 K. It is
        sharp for smooth r only, and loose by up to sqrt(cond(D^-1 K)), of order 1/h, for oscillating r such
        as rounding errors.
        """
        found = self._overestimated(derivative)
        if found is not None:
            return found
        least = self._smallest_eigenvalue
        return self.dual_norm_estimate(derivative) / math.sqrt(least) if least > 0.0 else math.inf

    def overestimated_gradient(self, derivative: Tensor) -> Tensor | None:
        """P r with r . K^-1 r <= r . P r, from the diagonal and without a solve; see `dual_norm_bound`."""
        least = self._smallest_eigenvalue
        return derivative / (least * self._diagonal) if least > 0.0 else None

    def _overestimated(self, derivative: Tensor) -> float | None:
        """The norm of a covector with the approximate inverse in place of K^-1; None without one."""
        if self._overestimate is None:
            return None
        unit = derivative / (magnitude(derivative) or 1.0)
        image = self._overestimate(unit)
        return None if image is None else magnitude(derivative) * paired_length(unit, image)

    def dual_norm_estimate(self, derivative: Tensor) -> float:
        """|derivative|_{D^-1}, D = diag(K), without a solve: within a factor of two for a P1 mass matrix."""
        square = dot(derivative, derivative / self._diagonal)
        usual = _USUAL[0] < square < _USUAL[1]
        return math.sqrt(square) if usual else length(derivative, lambda r: r / self._diagonal)

    @cached_property
    def _diagonal(self) -> Tensor:
        return self.matrix.diagonal()

    @cached_property
    def smoothest(self) -> Tensor:
        """(1, n) a vector close to the eigenvector of D^-1 K with the smallest eigenvalue; D = diag(K).

        It takes one to four inverse iterations, until the quotient settles. They start from a constant in the unknowns
        D^1/2 x, which gives every node the same weight, however much the coefficients differ. The first quotient is
        that of the inverse, which a product with it yields.
        """
        d, quotient = self._diagonal, math.inf
        x = d.rsqrt()[None]
        for k in range(4):
            image = self.gradient(d * x)
            before = quotient if k else dot(x, d * x) / dot(x, d * image)
            x = image / image.abs().max()
            quotient = self._quotient(x)
            if (quotient >= _SETTLED * before) if k else (_NEARLY * before <= quotient <= _SMALL):
                break
        return x

    def _quotient(self, x: Tensor) -> float:
        """x . K x / x . D x."""
        return self.inner(x, x) / dot(x, self._diagonal * x)

    @cached_property
    def _smallest_eigenvalue(self) -> float:
        """A lower bound of the smallest eigenvalue of D^-1 K: half the Rayleigh quotient of `smoothest`.

        The quotient converges twice as fast as the vector; the factor of one half covers the remaining error. Where the
        quotient is not far below one, the mean of the eigenvalues, K is like a mass matrix, whose eigenvector of the
        smallest eigenvalue oscillates: then inverse iterations from a rough vector find it.
        """
        if self.diagonal:
            return 1.0
        quotient = self._quotient(self.smoothest)
        if quotient > _LARGE:
            d = self._diagonal
            x = (torch.sin(torch.arange(1, len(d) + 1, dtype=d.dtype, device=d.device) ** 2) * d.rsqrt())[None]
            for _ in range(_ROUGH_STEPS):
                x = self.gradient(d * x)
                x = x / x.abs().max()
            quotient = min(quotient, self._quotient(x))
        return 0.5 * quotient


class ExactRieszMap(RieszMap):
    """A Riesz map whose bounds of the norms of covectors are the norms themselves, where a solve is all there is."""

    def dual_norm_bound(self, derivative: Tensor) -> float:
        found = self._overestimated(derivative)
        return self.dual_norm(derivative) if found is None else found


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

    def solve(derivative: Tensor, rtol: float = rtol) -> Tensor:
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

    def improve(derivative: Tensor, guess: Tensor) -> Tensor:
        left = derivative - matrix.mv(guess)
        wanted, reached = (float((each.square() * inverse).sum()) for each in (derivative, left))
        if not (_USUAL[0] < wanted < _USUAL[1] and math.isfinite(reached)):
            return solve(derivative)
        if reached <= (rtol * rtol) * wanted:
            return guess
        # The correction need be no more accurate than the sum.
        return guess + solve(left, rtol * math.sqrt(wanted / reached))

    return RieszMap(matrix, solve, improve=improve, rough=solve)


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
