"""Sparse matrices in torch, applied to rows of vectors: (k, n) in, (k, m) out."""

from __future__ import annotations

import warnings
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor


def torch_csr(matrix: sp.csr_matrix, device: torch.device) -> Tensor:
    """Copy a scipy CSR matrix to a torch CSR tensor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr),
            torch.from_numpy(matrix.indices),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
            device=device,
            check_invariants=False,
        )


class SparseMatrix:
    """A real sparse matrix (m, n) on a torch device.

    The transpose is stored as a CSR matrix of its own, because products with a transposed CSR tensor are many
    times slower than products with a CSR tensor.

    Args:
        host: the matrix; its data is shared, not copied, on the CPU. None for a product that knows how to apply itself.
        device: where products are computed.
        symmetric: the matrix equals its transpose (not checked), so that one copy serves both.
    """

    def __init__(self, host: sp.csr_matrix | None, device: torch.device | str = "cpu", symmetric: bool = False) -> None:
        self._host = host if host is None or isinstance(host, sp.csr_matrix) else sp.csr_matrix(host)
        self.device = torch.device(device)
        self.symmetric = symmetric

    @cached_property
    def host(self) -> sp.csr_matrix:
        """The matrix as one of scipy."""
        assert self._host is not None
        return self._host

    @property
    def shape(self) -> tuple[int, int]:
        return self.host.shape

    @cached_property
    def _tensor(self) -> Tensor:
        return torch_csr(self.host, self.device)

    @cached_property
    def _transposed(self) -> Tensor:
        return self._tensor if self.symmetric else torch_csr(self.host.T.tocsr(), self.device)

    def mv(self, x: Tensor) -> Tensor:
        """A x for every row x of (k, n); (k, m)."""
        return _apply(self._tensor, x)

    def rmv(self, y: Tensor) -> Tensor:
        """A^T y for every row y of (k, m); (k, n)."""
        return _apply(self._transposed, y)

    def diagonal(self) -> Tensor:
        return torch.from_numpy(self.host.diagonal()).to(self.device)

    def __repr__(self) -> str:
        m, n = self.shape
        return f"SparseMatrix({m:,} x {n:,}, {self.host.nnz:,} entries, {self.device})"


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    if x.shape[0] == 1:
        return torch.mv(matrix, x[0])[None]
    return (matrix @ x.T).T


class ScenarioMatrix:
    """Square matrices with one sparsity pattern, one per scenario or one that all scenarios share.

    Args:
        pattern: (indptr, indices) of a CSR matrix.
        data: (S, nnz), or (1, nnz) where the scenarios share the matrix.
        shape: (n, m) of one matrix.
        symmetric: every matrix equals its transpose.
    """

    def __init__(
        self, pattern: tuple[np.ndarray, np.ndarray], data: Tensor, shape: tuple[int, int], symmetric: bool = False
    ) -> None:
        self.pattern, self.data, self.shape, self.symmetric = pattern, data, shape, symmetric

    @property
    def shared(self) -> bool:
        return self.data.shape[0] == 1

    def host(self, scenario: int = 0) -> sp.csr_matrix:
        """The matrix of one scenario."""
        return self._one if self.shared else self._host(self.data[scenario])

    @cached_property
    def _one(self) -> sp.csr_matrix:
        return self._host(self.data[0])

    def row(self, scenario: int) -> ScenarioMatrix:
        """The matrix of one scenario, by itself."""
        k = 0 if self.shared else scenario
        return ScenarioMatrix(self.pattern, self.data[k : k + 1], self.shape, self.symmetric)

    def mean(self) -> sp.csr_matrix:
        """The mean over the scenarios."""
        return self._one if self.shared else self._host(self.data.mean(0))

    @property
    def operator(self) -> SparseMatrix:
        """The matrix that all scenarios share, for products on its device."""
        assert self.shared
        return self._operator

    def _host(self, data: Tensor) -> sp.csr_matrix:
        indptr, indices = self.pattern
        return sp.csr_matrix((data.cpu().numpy(), indices, indptr), shape=self.shape)

    def __add__(self, other: ScenarioMatrix) -> ScenarioMatrix:
        if self.shape != other.shape:
            raise ValueError(f"matrices of shapes {self.shape} and {other.shape} cannot be added")
        symmetric = self.symmetric and other.symmetric
        if all(mine is theirs for mine, theirs in zip(self.pattern, other.pattern, strict=True)):
            return ScenarioMatrix(self.pattern, self.data + other.data, self.shape, symmetric)
        # The numbers of the entries are added in place of the entries, so that zeros are kept and the pattern does not
        # depend on the numbers: the real part counts the entries of the one, the imaginary part those of the other.
        numbers = [
            sp.csr_matrix((factor * np.arange(1, len(each.pattern[1]) + 1), *each.pattern[::-1]), shape=self.shape)
            for factor, each in ((1.0, self), (1j, other))
        ]
        both = sp.csr_matrix(numbers[0] + numbers[1])
        both.sort_indices()
        data = self.data.new_zeros(max(self.data.shape[0], other.data.shape[0]), both.nnz)
        for part, number in ((self.data, both.data.real), (other.data, both.data.imag)):
            into = np.flatnonzero(number)
            order = torch.from_numpy(number[into].astype(np.int64) - 1).to(data.device)
            data[:, torch.from_numpy(into).to(data.device)] += part[:, order]
        return ScenarioMatrix((both.indptr, both.indices), data, self.shape, symmetric)

    def scaled(self, factor: float | Tensor) -> ScenarioMatrix:
        """The matrix times a number, or times one number per scenario (S, 1)."""
        if isinstance(factor, float) and factor == 1.0:
            return self
        return ScenarioMatrix(self.pattern, factor * self.data, self.shape, self.symmetric)

    def with_columns(self, factor: float | Tensor, columns: np.ndarray, other: float) -> ScenarioMatrix:
        """The matrix times a number, or times one per scenario (S, 1), but some columns times another number."""
        chosen = np.zeros(self.shape[1], dtype=bool)
        chosen[columns] = True
        mask = torch.from_numpy(chosen[self.pattern[1]]).to(self.data.device)
        data = torch.where(mask, other * self.data, factor * self.data)
        symmetric = self.symmetric and isinstance(factor, float) and factor == other
        return ScenarioMatrix(self.pattern, data, self.shape, symmetric)

    def restrict(self, rows: np.ndarray, columns: np.ndarray) -> ScenarioMatrix:
        """The submatrices of some rows and columns, both given as sorted indices."""
        if len(rows) == self.shape[0] and len(columns) == self.shape[1]:
            return self
        return Cut(self.pattern, self.shape, rows, columns).of(self)

    @cached_property
    def _operator(self) -> SparseMatrix:
        if self.shared:
            return SparseMatrix(self.host(), self.data.device, self.symmetric)
        # One block-diagonal matrix makes a single product for all scenarios.
        indptr, indices = self.pattern
        count, nnz = self.data.shape
        n, m = self.shape
        pointers = (indptr[None, :-1].astype(np.int64) + nnz * np.arange(count)[:, None]).reshape(-1)
        columns = (indices[None].astype(np.int64) + m * np.arange(count)[:, None]).reshape(-1)
        entries = self.data.cpu().numpy().reshape(-1), columns, np.append(pointers, count * nnz)
        return SparseMatrix(sp.csr_matrix(entries, shape=(count * n, count * m)), self.data.device, self.symmetric)

    def mv(self, x: Tensor) -> Tensor:
        """A_s x_s for every scenario: (..., S, m) in, (..., S, n) out."""
        return self._operator.mv(self._rows(x)).reshape(*x.shape[:-1], self.shape[0])

    def rmv(self, y: Tensor) -> Tensor:
        """A_s^T y_s for every scenario: (..., S, n) in, (..., S, m) out."""
        return self._operator.rmv(self._rows(y)).reshape(*y.shape[:-1], self.shape[1])

    def _rows(self, x: Tensor) -> Tensor:
        """Rows for the operator, which takes all scenarios as one vector unless they share the matrix."""
        return x.reshape(-1, x.shape[-1] * self.data.shape[0])


class Cut:
    """The submatrices of some rows and columns, given as sorted indices, of matrices with one pattern."""

    def __init__(
        self, pattern: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], rows: np.ndarray, columns: np.ndarray
    ) -> None:
        self.whole, self.rows, self.columns = pattern, rows, columns
        indptr, indices = pattern
        number = np.full(shape[1], -1, dtype=indices.dtype)
        number[columns] = np.arange(len(columns))
        kept_rows = np.zeros(shape[0], dtype=bool)
        kept_rows[rows] = True
        renumbered = number[indices]
        kept = np.repeat(kept_rows, np.diff(indptr)) & (renumbered >= 0)
        before = np.concatenate([[0], np.cumsum(kept, dtype=indptr.dtype)])
        counts = np.diff(before[indptr])[rows]
        pointers = np.concatenate([[0], np.cumsum(counts)]).astype(indptr.dtype)
        self.pattern, self._same = (pointers, renumbered[kept]), np.array_equal(rows, columns)
        self._kept = torch.from_numpy(np.flatnonzero(kept).astype(indptr.dtype))

    def fits(self, matrix: ScenarioMatrix, rows: np.ndarray, columns: np.ndarray) -> bool:
        """Whether this is the cut of these rows and columns, which must be the same arrays, for a matrix."""
        pattern = all(mine is its for mine, its in zip(self.whole, matrix.pattern, strict=True))
        return pattern and self.rows is rows and self.columns is columns

    def of(self, matrix: ScenarioMatrix) -> ScenarioMatrix:
        """The submatrix of a matrix with the pattern."""
        kept = self._kept.to(matrix.data.device)
        data = torch.stack([row.index_select(0, kept) for row in matrix.data])
        shape = (len(self.rows), len(self.columns))
        return ScenarioMatrix(self.pattern, data, shape, matrix.symmetric and self._same)


class Cuts:
    """`ScenarioMatrix.restrict` for matrices of which many have the same pattern: the last cut is kept."""

    def __init__(self) -> None:
        self._last: Cut | None = None

    def of(self, matrix: ScenarioMatrix, rows: np.ndarray, columns: np.ndarray) -> ScenarioMatrix:
        """The submatrix of some rows and columns, as `ScenarioMatrix.restrict`."""
        if len(rows) == matrix.shape[0] and len(columns) == matrix.shape[1]:
            return matrix
        if self._last is None or not self._last.fits(matrix, rows, columns):
            self._last = Cut(matrix.pattern, matrix.shape, rows, columns)
        return self._last.of(matrix)


def added(a: ScenarioMatrix | None, b: ScenarioMatrix) -> ScenarioMatrix:
    """a + b, where None is zero."""
    return b if a is None else a + b
