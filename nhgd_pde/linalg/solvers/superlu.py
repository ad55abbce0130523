"""SuperLU: direct factors, in the order of unknowns with the least fill that the matrix allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from torch import Tensor

from .base import Hints, SingularMatrixError, WithoutEstimate
from .trial_solve import LEAST_ACCURACY, recovers

# Largest error of a trial solve with factors without pivots: above this error, factors with pivots are better.
_REFINED = 1e-6

# Entries below this share of the largest entry in their row and column are rounding errors of sums that cancel; factors
# have errors of the same size.
_ROUNDING = 0.5 * np.finfo(float).eps
# They are dropped where they make up at least this share of all entries.
_WORTHWHILE = 0.1
# Entries put on the zero diagonal of a saddle point matrix, relative to its Schur complement.
_STATIC_PIVOT = 1e-8
# Rounding errors explain a singular matrix where those of the largest diagonal entry exceed this share of the smallest.
_CONTRAST = 1e-6
_WITHOUT_PIVOTING: dict[str, Any] = {
    "permc_spec": "MMD_AT_PLUS_A",
    "diag_pivot_thresh": 0.0,
    "panel_size": 8,
    "options": {"SymmetricMode": True},
}


def significant(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """A symmetric matrix without the entries that are rounding errors.

    A constant coefficient on a regular mesh of simplices leaves many, such as those of the diagonals of squares:
    without them the factors of a Laplacian on a box have half as many entries. A few are kept: without them, unknowns
    with the same neighbours, such as the components of a displacement at one node, would no longer look alike, by which
    the order of least fill is found. In a design of full and empty cells 4 % of the entries are rounding errors, and
    the factors have 28 % more entries without them.
    """
    sizes = np.abs(matrix.data)
    if not len(sizes) or sizes.min() > _ROUNDING * sizes.max():
        return matrix
    counts = np.diff(matrix.indptr)
    # The largest entry of a column is that of the row with its number; a row without entries has the largest entry 0.
    largest = np.zeros(matrix.shape[0])
    filled = np.flatnonzero(counts)
    largest[filled] = np.maximum.reduceat(sizes, matrix.indptr[filled])
    kept = sizes > _ROUNDING * np.minimum(np.repeat(largest, counts), largest[matrix.indices])
    if kept.sum() > (1.0 - _WORTHWHILE) * len(kept):
        return matrix
    before = np.concatenate([[0], np.cumsum(kept)])
    return sp.csr_matrix((matrix.data[kept], matrix.indices[kept], before[matrix.indptr]), shape=matrix.shape)


def _factors(matrix: sp.csr_matrix, symmetric: bool) -> Any:
    """The factors of SuperLU; None where they are not good."""
    if not symmetric:
        return _tried(matrix, lambda: scipy.sparse.linalg.splu(sp.csc_matrix(matrix)))
    # The columns of a symmetric matrix are its rows.
    columns = sp.csc_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    return _tried(matrix, lambda: scipy.sparse.linalg.splu(columns, **_WITHOUT_PIVOTING))


class _Saddle:
    """Factors of a saddle point matrix [A B; B^T 0] without pivoting: those of [A B; B^T -D] with a small diagonal D,
    and iterative refinement, each step of which reduces the error by about the relative size of D.

    With A symmetric positive definite the matrix with D is quasidefinite and has such factors in any order of its
    unknowns (Vanderbei 1995, SIAM J. Optim. 5), so that the order of least fill can be taken. The small diagonals are
    the static pivots of Li and Demmel (2003, ACM TOMS 29). Where A is not symmetric, or not definite, a trial shows
    whether the factors are good.
    """

    def __init__(self, matrix: sp.csr_matrix) -> None:
        diagonal = matrix.diagonal()
        zero = diagonal == 0.0
        squares = np.asarray(matrix.multiply(matrix).sum(axis=1)).reshape(-1)
        schur = squares / np.median(diagonal[~zero])
        moved = matrix - sp.diags_array(np.where(zero, _STATIC_PIVOT * schur, 0.0))
        self._matrices = {"N": matrix, "T": matrix.T.tocsr()}
        self._lu = scipy.sparse.linalg.splu(sp.csc_matrix(moved), **_WITHOUT_PIVOTING)
        self.shape, self.nnz = matrix.shape, self._lu.nnz

    def solve(self, b: np.ndarray, trans: str = "N") -> np.ndarray:
        x = self._lu.solve(b, trans=trans)
        for _ in range(2):
            x += self._lu.solve(b - self._matrices[trans] @ x, trans=trans)
        return np.asarray(x)


def _saddle_factors(matrix: sp.csr_matrix) -> Any:
    """The factors; None where the matrix has no zeros on its diagonal, or the factors are not good."""
    diagonal = matrix.diagonal()
    if diagonal.all() or not diagonal.any():
        return None
    return _tried(matrix, lambda: _Saddle(matrix), _REFINED)


def _tried(matrix: sp.csr_matrix, factorise: Callable[[], Any], accuracy: float = LEAST_ACCURACY) -> Any:
    """Factors; None where there are none, or they do not recover a known vector from its image."""
    try:
        factors = factorise()
    except RuntimeError:
        return None
    return factors if recovers(factors.solve, matrix, accuracy) else None


def _suspicion(matrix: sp.csr_matrix) -> str:
    """The likely reason why a matrix is singular."""
    sizes = np.abs(matrix.diagonal())
    sizes = sizes[sizes > 0.0]
    ratio = float(sizes.max() / sizes.min()) if len(sizes) else 1.0
    if ratio * _ROUNDING < _CONTRAST:
        return "is a boundary condition missing?"
    return (
        f"its diagonal entries differ by a factor of {ratio:.0e}, so that rounding errors of the large ones hide the "
        "small ones; are coefficients of such different sizes meant, or is a boundary condition missing?"
    )


def factors_of_component(matrix: sp.csr_matrix) -> Any:
    """The factors of a matrix with a symmetric pattern and large diagonal entries: without pivots where they are good.

    Raises:
        SingularMatrixError: there are none.
    """
    columns = sp.csc_matrix(matrix)
    found = _tried(matrix, lambda: scipy.sparse.linalg.splu(columns, **_WITHOUT_PIVOTING), _REFINED)
    found = _factors(matrix, False) if found is None else found
    if found is None:
        raise singular(matrix)
    return found


@dataclass(frozen=True)
class SuperLU:
    """Sparse LU factors on the host, by SuperLU in SciPy."""

    name = "superlu"

    def prepare(self, matrix: sp.csr_matrix, hints: Hints) -> SuperLUFactors:
        """The factors; raises a `SingularMatrixError` where there are none."""
        factors = _saddle_factors(matrix)
        if factors is None:
            factors = _factors(significant(sp.csr_matrix(matrix)) if hints.symmetric else matrix, hints.symmetric)
        if factors is None and hints.symmetric:
            # The matrix is symmetric, but so far from definite that it needs pivots.
            factors = _factors(matrix, False)
        if factors is None:
            raise singular(matrix)
        return SuperLUFactors(factors, hints.symmetric)


def singular(matrix: sp.csr_matrix) -> SingularMatrixError:
    """The error for a matrix that has no inverse, with the likely reason."""
    n = f"{matrix.shape[0]:,}"
    return SingularMatrixError(f"the {n} x {n} matrix is singular: {_suspicion(matrix)}")


class SuperLUFactors(WithoutEstimate):
    """The factors of SuperLU. Vectors may live on any device: they are copied to the host and back."""

    exact, error = True, 0.0
    note = ""

    def __init__(self, lu: Any, symmetric: bool) -> None:
        self._lu, self._symmetric = lu, symmetric

    @property
    def size(self) -> int:
        return int(self._lu.shape[0])

    @property
    def fill(self) -> int:
        """Number of entries in both factors."""
        return int(self._lu.nnz)

    @property
    def bytes(self) -> int:
        """Bytes of both factors: one number and one index per entry."""
        return 12 * self.fill

    def solve(self, b: Tensor) -> Tensor:
        return self._solve(b, "N")

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self._solve(b, "N" if self._symmetric else "T")

    def _solve(self, b: Tensor, trans: str) -> Tensor:
        host = b.detach().cpu().numpy()
        solution = self._lu.solve(np.asfortranarray(host.T), trans=trans)
        return torch.from_numpy(np.ascontiguousarray(solution.T)).to(b.device)
