"""Levels of algebraic multigrid: matrices and prolongations by smoothed aggregation, which pyamg makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .base import Hints

# Levels end where a matrix has at most about this number of rows, or where there are this many levels.
_COARSEST, _LEVELS = 400, 12
# How prolongations are smoothed; neither way needs random numbers. With scaling by row sums, a vector takes twice as
# many cycles as with the minimisation of the energy of coarse functions. A scalar gains nothing from the latter.
_SCALAR: tuple[str, dict[str, Any]] = ("jacobi", {"omega": 4.0 / 3.0, "weighting": "local"})
_VECTOR: tuple[str, dict[str, Any]] = ("energy", {"maxiter": 3})
# Entries below this share of the largest entry in their row and column are rounding errors of sums that cancel.
_ROUNDING = 4.0 * np.finfo(float).eps


def levels(
    matrix: sp.csr_matrix, hints: Hints, theta: float, first: int = 0
) -> tuple[list[sp.csr_matrix], list[sp.csr_matrix]]:
    """The matrices of all levels, from a symmetric positive definite one on, and the prolongations between them.

    A space of higher degree has the functions of degree one as its first coarser level: aggregates of its own unknowns
    take twice as many cycles.

    Args:
        matrix: the finest matrix.
        hints: what is known of the whole matrix.
        theta: share below which couplings are weak.
        first: the unknown that the first row of the matrix belongs to.
    """
    kept = without_rounding_errors(matrix)
    if hints.linear is None or hints.coefficients is None:
        return aggregated(kept, hints, theta)
    linear = hints.linear(hints.coefficients).between(first, first + kept.shape[0])
    coarse = without_rounding_errors(sp.csr_matrix(linear.prolong.T @ kept @ linear.prolong))
    matrices, prolongations = aggregated(coarse, hints.at(linear.vertices), theta)
    return [kept, *matrices], [linear.prolong, *prolongations]


def aggregated(matrix: sp.csr_matrix, hints: Hints, theta: float) -> tuple[list[sp.csr_matrix], list[sp.csr_matrix]]:
    """The matrices of all levels and the prolongations between them, by smoothed aggregation."""
    import pyamg

    blocks = _NodeBlocks(matrix, hints) if hints.nodes is not None else None
    modes = hints.near_nullspace
    found: Any = pyamg.smoothed_aggregation_solver(
        matrix if blocks is None else blocks.matrix,
        B=modes if blocks is None or modes is None else blocks.spread(modes),
        symmetry="symmetric",
        strength=("symmetric", {"theta": theta}),
        smooth=_SCALAR if modes is None else _VECTOR,
        improve_candidates=None,
        # Nodes of the coarsest level, which have one unknown for each mode.
        max_coarse=_COARSEST // (1 if modes is None else modes.shape[1]),
        max_levels=_LEVELS,
        keep=False,
    )
    matrices = [matrix, *(sp.csr_matrix(level.A) for level in found.levels[1:])]
    prolongations = [sp.csr_matrix(level.P) for level in found.levels[:-1]]
    if blocks is not None and prolongations:
        prolongations[0] = prolongations[0][blocks.places]
    return matrices, prolongations


class _NodeBlocks:
    """A matrix whose unknowns are components of a vector at nodes, in blocks of one node each.

    Components that are not unknowns, since their values are given, get a row and a column with a diagonal entry alone.
    The near-nullspace is zero there, and so are the prolongations.

    Attributes:
        places: (n,) the row of every unknown.
        matrix: the matrix in blocks.
    """

    def __init__(self, matrix: sp.csr_matrix, hints: Hints) -> None:
        assert hints.nodes is not None and hints.components is not None
        numbers, nodes = np.unique(hints.nodes, return_inverse=True)
        width = int(hints.components.max()) + 1
        self.places = (nodes * width + hints.components).astype(np.int32)
        size = len(numbers) * width
        entries = matrix.tocoo()
        absent = np.setdiff1d(np.arange(size, dtype=np.int32), self.places)
        rows = np.concatenate([self.places[entries.row], absent])
        columns = np.concatenate([self.places[entries.col], absent])
        usual = float(np.median(matrix.diagonal()))
        values = np.concatenate([entries.data, np.full(len(absent), usual)])
        self.matrix = sp.csr_matrix((values, (rows, columns)), shape=(size, size)).tobsr((width, width))

    def spread(self, modes: np.ndarray) -> np.ndarray:
        """Vectors (n, k) in the rows of the matrix."""
        found = np.zeros((self.matrix.shape[0], modes.shape[1]))
        found[self.places] = modes
        return found


def without_rounding_errors(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The matrix without entries that are rounding errors, with indices of 32 bits.

    Those entries would couple unknowns that do not belong together.
    """
    root = np.sqrt(np.abs(matrix.diagonal()))
    rows = np.repeat(root, np.diff(matrix.indptr))
    kept = np.abs(matrix.data) > _ROUNDING * rows * root[matrix.indices]
    before = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr].astype(np.int32)
    found = sp.csr_matrix((matrix.data[kept], matrix.indices[kept].astype(np.int32), before), shape=matrix.shape)
    found.sort_indices()
    return found
