"""A multigrid cycle for advection and diffusion of one component, with factors where advection dominates."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from .aggregation import levels
from .base import Hints
from .superlu import factors_of_component

# Levels are made coarser while the skew-symmetric entries of a row add up to at most this share of its diagonal entry.
# With central differences this is the Peclet number of a cell. Beyond it coarse matrices are unstable.
_MOST_ADVECTION = 1.0
# A few rows, such as those beside a corner with a singular velocity, do not decide.
_ROWS = 0.98
# Sweeps before and after each correction. One takes a tenth more steps of GMRES, three take hardly fewer than two.
_SWEEPS = 2
# Coarsest levels have about this number of rows at most.
_SMALL = 400


class ConvectionCycle:
    """A W-cycle for a matrix that is nearly symmetric on its finer levels, and for its transpose.

    Prolongations are those of the symmetric part; the matrix of a coarser level is P^T A P. Two sweeps of Gauss and
    Seidel forwards come before each correction, two backwards after it. The first level on which advection dominates
    is factorised. It is the finest one where the mesh does not resolve the flow.

    Args:
        matrix: A (n, n).
        hints: what is known of the matrix that A is a diagonal block of.
        first: the first unknown of the block.
    """

    def __init__(self, matrix: sp.csr_matrix, hints: Hints, first: int) -> None:
        self._matrices, self._prolongations = [matrix], []
        if _admissible(matrix):
            symmetric = sp.csr_matrix(0.5 * (matrix + matrix.T))
            for prolong in levels(symmetric, hints, 0.0, first)[1]:
                self._prolongations.append(prolong)
                self._matrices.append(sp.csr_matrix(prolong.T @ self._matrices[-1] @ prolong))
                if not _admissible(self._matrices[-1]):
                    break
        self._transposed: list[sp.csr_matrix] | None = None
        self._restrictions = [each.T.tocsr() for each in self._prolongations]
        self._factors = factors_of_component(self._matrices[-1])

    @property
    def bytes(self) -> int:
        """Bytes of all levels, with their transposes, and of the factors."""
        held = [*self._matrices[:-1], *(self._transposed or []), *self._prolongations, *self._restrictions]
        return 12 * (sum(each.nnz for each in held) + int(self._factors.nnz))

    @property
    def levels(self) -> int:
        """The number of levels; one where the matrix itself is factorised."""
        return len(self._matrices)

    def apply(self, b: np.ndarray, transposed: bool) -> np.ndarray:
        """An approximation of A^-1 b or A^-T b, linear in b (n,)."""
        if transposed and self._transposed is None:
            self._transposed = [each.T.tocsr() for each in self._matrices[:-1]]
        matrices = self._transposed if transposed and self._transposed is not None else self._matrices
        return self._cycle(matrices, 0, b, np.zeros_like(b), transposed)

    def _cycle(
        self, matrices: list[sp.csr_matrix], number: int, b: np.ndarray, x: np.ndarray, transposed: bool
    ) -> np.ndarray:
        if number == len(self._prolongations):
            return np.asarray(self._factors.solve(b, trans="T" if transposed else "N"))
        from pyamg.relaxation.relaxation import gauss_seidel

        matrix = matrices[number]
        # The last level is exact, and is visited once.
        for _ in range(1 if number + 1 == len(self._prolongations) or number == 0 else 2):
            gauss_seidel(matrix, x, b, _SWEEPS, "forward")
            right = self._restrictions[number] @ (b - matrix @ x)
            x += self._prolongations[number] @ self._cycle(
                matrices, number + 1, right, np.zeros_like(right), transposed
            )
            gauss_seidel(matrix, x, b, _SWEEPS, "backward")
        return x


def _admissible(matrix: sp.csr_matrix) -> bool:
    """Whether a matrix is large, and advection is so small that a coarser matrix makes sense."""
    diagonal = matrix.diagonal()
    if matrix.shape[0] <= _SMALL or not (diagonal > 0.0).all():
        return False
    skew = 0.5 * abs(matrix - matrix.T).sum(axis=1)
    return bool(np.quantile(np.asarray(skew).reshape(-1) / diagonal, _ROWS) <= _MOST_ADVECTION)
