"""Matrices that are sums of fixed matrices of the cells, each times a coefficient: one product with a sparse map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.sparse import ScenarioMatrix, SparseMatrix

# Largest number of entries of a map, each of which takes 12 bytes.
LARGEST_MAP = 30_000_000


@dataclass(frozen=True, eq=False)
class CoefficientMap:
    """c -> the matrix sum_e c_e K_e, (n, n).

    Attributes:
        pattern: (indptr, indices) of the matrices.
        entries: (stored, coefficients) the map to the entries that are stored: all, or those on and above the diagonal.
        mirror: (nnz,) the stored entry of each entry; None where all are stored.
        size: n.
    """

    pattern: tuple[np.ndarray, np.ndarray]
    entries: SparseMatrix
    mirror: Tensor | None
    size: int

    def data(self, c: Tensor) -> Tensor:
        """The entries (S, nnz) for coefficients (S, coefficients)."""
        found = self.entries.mv(c)
        return found if self.mirror is None else found[:, self.mirror]

    def matrix(self, data: Tensor) -> ScenarioMatrix:
        """The matrices with these entries (S, nnz)."""
        return ScenarioMatrix(self.pattern, data, (self.size, self.size), self.mirror is not None)


def map_entries(cells: int, columns: int, functions: int, symmetric: bool) -> int:
    """The number of entries of the map of so many cells, with so many coefficients and functions each."""
    pairs = functions * (functions + 1) // 2 if symmetric else functions * functions
    return cells * columns * pairs


def coefficient_map(dofs: np.ndarray, local: Tensor, size: int, symmetric: bool) -> CoefficientMap:
    """The map of the element matrices of all cells.

    Args:
        dofs: (cells, functions) row and column of each function; -1 where it is left out.
        local: (cells, coefficients of a cell, functions, functions) the matrices that the coefficients multiply.
        size: n.
        symmetric: the matrices are symmetric, so that half of their entries are stored.
    """
    cells, per_cell, functions = local.shape[:3]
    first, second = np.triu_indices(functions) if symmetric else np.divmod(np.arange(functions**2), functions)
    rows, columns = dofs[:, first].astype(np.int64), dofs[:, second].astype(np.int64)
    values = local[:, :, first, second].movedim(1, 2).cpu().numpy()
    if symmetric:
        # Where two functions of a cell share a row, both entries beside the diagonal are added to it.
        twice = (rows == columns) & (first != second)
        if twice.any():
            values = values * np.where(twice, 2.0, 1.0)[:, :, None]
        rows, columns = np.minimum(rows, columns), np.maximum(rows, columns)
    kept = ((rows >= 0) & (columns >= 0)).reshape(-1)
    keys, slots = np.unique((rows * size + columns).reshape(-1)[kept], return_inverse=True)
    cell = np.repeat(np.arange(cells), len(first))[kept]
    coefficients = cell[:, None] * per_cell + np.arange(per_cell)
    data, places = values.reshape(-1, per_cell)[kept].reshape(-1), np.repeat(slots, per_cell)
    shape = (len(keys), cells * per_cell)
    entries = sp.csr_matrix((data, (places, coefficients.reshape(-1))), shape=shape)
    pattern, mirror = _whole(keys, size) if symmetric else (_pattern(keys, size), None)
    on_device = None if mirror is None else torch.from_numpy(mirror).to(local.device)
    return CoefficientMap(pattern, SparseMatrix(entries, local.device), on_device, size)


def _pattern(keys: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pattern (indptr, indices) with entries at sorted keys, row * size + column."""
    index = np.int32 if max(len(keys), size) < 2**31 else np.int64
    pointers = np.concatenate([[0], np.cumsum(np.bincount(keys // size, minlength=size))])
    return pointers.astype(index), (keys % size).astype(index)


def _whole(keys: np.ndarray, size: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The pattern of symmetric matrices with stored entries at keys, and the stored entry of each of their entries."""
    rows, columns = keys // size, keys % size
    below = np.flatnonzero(rows != columns)
    every = np.concatenate([keys, columns[below] * size + rows[below]])
    order = np.argsort(every, kind="stable")
    return _pattern(every[order], size), np.concatenate([np.arange(len(keys)), below])[order]
