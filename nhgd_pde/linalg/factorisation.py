"""A sparse matrix factorised once, for solves with it and with its transpose."""

from __future__ import annotations

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


# Solves that keep less than three digits are noise.
_LEAST_ACCURACY = 1e-3


def _factors(matrix: sp.csr_matrix, symmetric: bool) -> Any:
    """SuperLU's factors, or None where they do not give a known vector back from its image."""
    options: dict[str, Any] = {}
    if symmetric:
        options = {
            "permc_spec": "MMD_AT_PLUS_A",
            "diag_pivot_thresh": 0.0,
            "options": {"SymmetricMode": True},
        }
    try:
        factors = scipy.sparse.linalg.splu(sp.csc_matrix(matrix), **options)
    except RuntimeError:
        return None
    # SuperLU notices a pivot that is exactly zero only; that of a pure Neumann problem is a rounding error.
    known = np.random.default_rng(0).standard_normal(matrix.shape[0])
    error = np.abs(factors.solve(matrix @ known) - known).max()
    return factors if error <= _LEAST_ACCURACY * np.abs(known).max() else None


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
        # A saddle point shows by the zeros on its diagonal, and needs pivots.
        definite = symmetric and bool(matrix.diagonal().all())
        factors = _factors(matrix, definite)
        if factors is None and definite:
            # Symmetric, but so far from definite that it needs pivots.
            factors = _factors(matrix, False)
        if factors is None:
            n = f"{matrix.shape[0]:,}"
            raise SingularMatrixError(f"the {n} x {n} matrix is singular: is a boundary condition missing?")
        self._lu = factors
        self._counts = counts
        self._symmetric = symmetric
        counts.factorisations += 1

    @property
    def size(self) -> int:
        return int(self._lu.shape[0])

    @property
    def fill(self) -> int:
        """Entries in both factors."""
        return int(self._lu.nnz)

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
    """The matrices of all scenarios factorised one by one; once where they share one."""

    def __init__(self, matrix: ScenarioMatrix, counts: Counts) -> None:
        count = matrix.data.shape[0]
        self._factors = [Factorisation(matrix.host(s), counts, matrix.symmetric) for s in range(count)]

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
