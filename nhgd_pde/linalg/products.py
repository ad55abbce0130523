"""Kronecker products with sparse matrices, applied without being made: a matrix in space at many times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .sparse import SparseMatrix


class KroneckerMatrix(SparseMatrix):
    """left kron right, with a small matrix on the left and a sparse matrix, or an identity matrix, on the right.

    Args:
        left: the matrix that acts on the times.
        right: the matrix at one time; its size for an identity matrix.
    """

    def __init__(self, left: sp.csr_matrix, right: SparseMatrix | int, device: torch.device | str = "cpu") -> None:
        self._left, self._right = SparseMatrix(left, device), None if isinstance(right, int) else right
        self._size = (right, right) if isinstance(right, int) else right.shape
        symmetric = self._right is None or self._right.symmetric
        super().__init__(None, device, symmetric and left.shape[0] == left.shape[1] and not (left != left.T).nnz)

    @cached_property
    def host(self) -> sp.csr_matrix:
        right = sp.identity(self._size[0]) if self._right is None else self._right.host
        return sp.csr_matrix(sp.kron(self._left.host, right))

    @property
    def shape(self) -> tuple[int, int]:
        (a, b), (c, d) = self._left.shape, self._size
        return a * c, b * d

    def mv(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self._size[1])
        rows = rows if self._right is None else self._right.mv(rows)
        return _over_times(self._left.mv, rows.reshape(len(x), -1, self._size[0]))

    def rmv(self, y: Tensor) -> Tensor:
        rows = y.reshape(-1, self._size[0])
        rows = rows if self._right is None else self._right.rmv(rows)
        return _over_times(self._left.rmv, rows.reshape(len(y), -1, self._size[1]))

    def diagonal(self) -> Tensor:
        right = np.ones(self._size[0]) if self._right is None else self._right.host.diagonal()
        return torch.from_numpy(np.kron(self._left.host.diagonal(), right)).to(self.device)


class BlockDiagonalMatrix(SparseMatrix):
    """Matrices as the blocks of a block diagonal one."""

    def __init__(self, blocks: Sequence[SparseMatrix]) -> None:
        self._blocks = tuple(blocks)
        super().__init__(None, blocks[0].device, all(each.symmetric for each in blocks))

    @cached_property
    def host(self) -> sp.csr_matrix:
        return sp.block_diag([each.host for each in self._blocks], format="csr")

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = zip(*(each.shape for each in self._blocks), strict=True)
        return sum(rows), sum(columns)

    def mv(self, x: Tensor) -> Tensor:
        pieces = torch.split(x, [each.shape[1] for each in self._blocks], dim=1)
        return torch.cat([each.mv(piece) for each, piece in zip(self._blocks, pieces, strict=True)], dim=1)

    def rmv(self, y: Tensor) -> Tensor:
        pieces = torch.split(y, [each.shape[0] for each in self._blocks], dim=1)
        return torch.cat([each.rmv(piece) for each, piece in zip(self._blocks, pieces, strict=True)], dim=1)

    def diagonal(self) -> Tensor:
        return torch.cat([each.diagonal() for each in self._blocks])


def repeated(matrix: SparseMatrix, copies: int, weight: float = 1.0) -> SparseMatrix:
    """Copies of a matrix, times a weight, as the blocks of a block diagonal one."""
    if copies == 1:
        return matrix if weight == 1.0 else SparseMatrix(weight * matrix.host, matrix.device, matrix.symmetric)
    return KroneckerMatrix(sp.csr_matrix(weight * sp.identity(copies)), matrix, matrix.device)


def _over_times(apply: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Values (k, times, n) -> (k, other times * n), by a matrix that acts on the times."""
    return torch.stack([apply(each.T).T.reshape(-1) for each in values])


def row_wise_kronecker(a: sp.csr_matrix, b: sp.csr_matrix) -> sp.csr_matrix:
    """(n, k m) whose row i is the Kronecker product of row i of a (n, k) and row i of b (n, m)."""
    entries = a.tocoo()
    # One row for each entry of a: the row of b times the entry, moved to its column; then rows of one i are added.
    rows = sp.csr_matrix(b[entries.row])
    lengths = np.diff(rows.indptr)
    data = rows.data * np.repeat(entries.data, lengths)
    columns = rows.indices + np.repeat(entries.col.astype(np.int64) * b.shape[1], lengths)
    moved = sp.csr_matrix((data, columns, rows.indptr), (len(entries.data), a.shape[1] * b.shape[1]))
    gather = sp.csr_matrix(
        (np.ones(len(entries.data)), (entries.row, np.arange(len(entries.data)))), (a.shape[0], moved.shape[0])
    )
    return sp.csr_matrix(gather @ moved)
