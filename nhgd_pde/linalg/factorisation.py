"""A sparse matrix factorised once, for solves with it and with its transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from torch import Tensor

from .counts import Counts
from .riesz import RieszMap
from .sparse import ScenarioMatrix, SparseMatrix


class SingularMatrixError(ArithmeticError):
    """A matrix that cannot be inverted in double precision."""


# Factors are not used where a trial solve with them has a larger relative error than this.
_LEAST_ACCURACY = 1e-3
# The same for refined solves with factors without pivots: above this error, factors with pivots are better.
_REFINED = 1e-6

# Entries below this share of the largest entry in their row and column are rounding errors of sums that cancel; factors
# have errors of the same size.
_ROUNDING = 0.5 * np.finfo(float).eps
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


def _significant(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The matrix without the entries that are rounding errors.

    A constant coefficient on a regular mesh of simplices leaves many, such as those of the diagonals of squares:
    without them the factors of a Laplacian on a box have half as many entries.
    """
    sizes = abs(matrix)
    rows, columns = (sizes.max(axis=axis).toarray().reshape(-1) for axis in (1, 0))
    smaller = np.minimum(np.repeat(rows, np.diff(matrix.indptr)), columns[matrix.indices])
    kept = sizes.data > _ROUNDING * smaller
    if kept.all():
        return matrix
    before = np.concatenate([[0], np.cumsum(kept)])
    return sp.csr_matrix((matrix.data[kept], matrix.indices[kept], before[matrix.indptr]), shape=matrix.shape)


def _factors(matrix: sp.csr_matrix, symmetric: bool) -> Any:
    """The factors of SuperLU; None where they are not good."""
    options = _WITHOUT_PIVOTING if symmetric else {}
    return _tried(matrix, lambda: scipy.sparse.linalg.splu(sp.csc_matrix(matrix), **options))


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


def _tried(matrix: sp.csr_matrix, factorise: Callable[[], Any], accuracy: float = _LEAST_ACCURACY) -> Any:
    """Factors; None where there are none, or they do not recover a known vector from its image."""
    try:
        factors = factorise()
    except RuntimeError:
        return None
    # SuperLU notices only pivots that are exactly zero. In a pure Neumann problem the last pivot is a rounding error.
    known = np.random.default_rng(0).standard_normal(matrix.shape[0])
    error = np.abs(factors.solve(matrix @ known) - known).max()
    return factors if error <= accuracy * np.abs(known).max() else None


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


class Factorisation:
    """LU factors of a sparse (n, n) matrix, computed on the host by SuperLU.

    Vectors may live on any device: they are copied to the host and back.

    Args:
        matrix: the matrix.
        counts: where the factorisation and every solve are counted.
        symmetric: the matrix equals its transpose. Minimum degree on A + A^T without pivoting then has about
            40 % less fill than the default column ordering; it is exact if A is definite or nearly so.

    Raises:
        SingularMatrixError: the matrix is singular to working precision or not finite.
    """

    def __init__(self, matrix: sp.csr_matrix, counts: Counts, symmetric: bool) -> None:
        if not np.isfinite(matrix.data).all():
            raise SingularMatrixError("the matrix to be factorised has entries that are not finite")
        factors = _saddle_factors(matrix)
        if factors is None:
            factors = _factors(_significant(sp.csr_matrix(matrix)) if symmetric else matrix, symmetric)
        if factors is None and symmetric:
            # The matrix is symmetric, but so far from definite that it needs pivots.
            factors = _factors(matrix, False)
        if factors is None:
            n = f"{matrix.shape[0]:,}"
            raise SingularMatrixError(f"the {n} x {n} matrix is singular: {_suspicion(matrix)}")
        self._lu = factors
        self._counts = counts
        self._symmetric = symmetric
        counts.factorisations += 1

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
        """A^-1 b for every row of (k, n)."""
        return self._solve(b, "N")

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A^-T b for every row of (k, n)."""
        return self._solve(b, "N" if self._symmetric else "T")

    def _solve(self, b: Tensor, trans: str) -> Tensor:
        self._counts.solves += b.shape[0]
        host = b.detach().cpu().numpy()
        solution = self._lu.solve(np.asfortranarray(host.T), trans=trans)
        return torch.from_numpy(np.ascontiguousarray(solution.T)).to(b.device)

    def __repr__(self) -> str:
        return f"Factorisation({self.size:,} unknowns, {self.fill:,} entries)"


class ScenarioFactorisation:
    """The matrices of all scenarios, factorised one by one; once where they share one matrix."""

    def __init__(self, matrix: ScenarioMatrix, counts: Counts) -> None:
        count = matrix.data.shape[0]
        self._factors = [Factorisation(matrix.host(s), counts, matrix.symmetric) for s in range(count)]

    @property
    def bytes(self) -> int:
        """Bytes of the factors of all scenarios."""
        return sum(factor.bytes for factor in self._factors)

    def solve(self, b: Tensor) -> Tensor:
        """A_s^-1 b_s, (S, n)."""
        if len(self._factors) == 1:
            return self._factors[0].solve(b)
        return torch.cat([factor.solve(row[None]) for factor, row in zip(self._factors, b, strict=True)])

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A_s^-T b_s, (S, n)."""
        if len(self._factors) == 1:
            return self._factors[0].solve_transposed(b)
        return torch.cat([factor.solve_transposed(row[None]) for factor, row in zip(self._factors, b, strict=True)])


def factorised_riesz_map(matrix: SparseMatrix, counts: Counts) -> RieszMap:
    """The Riesz map of a Gram matrix inverted by its factors, which are computed when first needed."""
    factors: list[Factorisation] = []

    def solve(derivative: Tensor) -> Tensor:
        if not factors:
            factors.append(Factorisation(matrix.host, counts, symmetric=True))
        return factors[0].solve(derivative)

    return RieszMap(matrix, solve)
