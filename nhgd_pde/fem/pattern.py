"""Sparsity patterns of matrices of two spaces, and the maps from coefficients at the points to their entries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.sparse import torch_csr
from .counting import first_of_equal, lexical_order

if TYPE_CHECKING:
    from .evaluation_operator import EvaluationOperator

# (i, j) -> the coefficient (S or 1, elements, points) of component i of the test function times component j of the
# trial function; absent pairs have the coefficient zero. Component 0 is the value and 1, 2, ... are the partial
# derivatives; the components of a second field follow.
Blocks = Mapping[tuple[int, int], Tensor]

# Largest number of entries of a map, each of which takes 12 bytes.
_LARGEST_MAP = 30_000_000


class Pattern:
    """The sparsity pattern of a matrix of two spaces, and the places of the entries of every element's matrix in it.

    It does not depend on the tables of the functions, so that spaces with the same numbers share it.

    Attributes:
        dofs: the columns of the test functions and of the trial functions, as in `EvaluationOperator`.
        shape: (size of the test space, size of the trial space).
        csr: (indptr, indices) of the matrix, with sorted columns.
        entries: the number of its entries.
        slots: (test functions, trial functions, elements) the entry of each number in the matrices of the elements;
            `entries` where a function is left out.
        whole: no function is left out.
    """

    def __init__(self, test: EvaluationOperator, trial: EvaluationOperator) -> None:
        self.dofs, self.shape = (test.dofs, trial.dofs), (test.size, trial.size)
        found = _symmetric_slots(test.dofs, test.size) if _same(*self.dofs) and trial.size == test.size else None
        if found is None:
            found = _slots(test.dofs, trial.dofs, (test.size, trial.size))
        (pointers, columns), slots = found
        self.entries = len(columns)
        # SciPy copies the indices of a matrix where both arrays are not of the same type.
        index = np.int32 if max(self.entries, trial.size) < 2**31 else np.int64
        self.csr = pointers.astype(index, copy=False), columns.astype(index, copy=False)
        self.slots = torch.from_numpy(slots).to(test.quadrature.weights.device)

    def fits(self, test: EvaluationOperator, trial: EvaluationOperator) -> bool:
        """Whether this is the pattern of the matrices of these functions."""
        sizes = self.shape == (test.size, trial.size)
        return sizes and _same(self.dofs[0], test.dofs) and _same(self.dofs[1], trial.dofs)

    @cached_property
    def whole(self) -> bool:
        return not self.slots.numel() or int(self.slots.max()) < self.entries

    def zeros(self, scenarios: int, like: Tensor) -> Tensor:
        """Data (S, nnz), or with one entry more, where numbers of functions that are left out go."""
        return like.new_zeros(scenarios, self.entries + (not self.whole))

    def scatter(self, data: Tensor, local: Tensor, first: int, end: int) -> None:
        """Add the matrices (a, b, S, elements) of the elements from `first` to before `end` to data of `zeros`."""
        slots = self.slots[:, :, first:end].reshape(-1)
        # Torch adds to vectors many times faster than to rows of a matrix.
        for row, own in zip(data, local.movedim(2, 0), strict=True):
            row.index_add_(0, slots, own.reshape(-1))


class Maps:
    """Matrices of two spaces with one row of coefficients for each scenario, by products of sparse maps.

    A map is made once for every set of pairs that share a coefficient.
    """

    def __init__(self, test: EvaluationOperator, trial: EvaluationOperator) -> None:
        self._test, self._trial, self._pattern = test, trial, test.pattern(trial)
        self._maps: dict[tuple[tuple[int, int], ...], Tensor | None] = {}

    def data(self, blocks: Blocks) -> Tensor | None:
        """CSR data (S, nnz) of one matrix for each scenario; None if a map would be too large."""
        groups: dict[tuple[int, int, tuple[int, ...]], list[tuple[int, int]]] = {}
        for pair, coefficient in blocks.items():
            groups.setdefault((coefficient.data_ptr(), len(coefficient), coefficient.stride()), []).append(pair)
        weights = self._test.quadrature.weights
        total: Tensor | None = None
        for pairs in groups.values():
            key = tuple(sorted(pairs))
            if key not in self._maps:
                self._maps[key] = self._map(key)
            entries = self._maps[key]
            if entries is None:
                return None
            weighted = blocks[pairs[0]] * weights
            columns = weighted.sum(-1) if entries.shape[1] == len(weights) else weighted.reshape(len(weighted), -1)
            part = (entries @ columns.T).T
            total = part if total is None else total + part
        return None if total is None else total.contiguous()

    def _map(self, pairs: tuple[tuple[int, int], ...]) -> Tensor | None:
        """The map (nnz, elements) if all tables are constant on each element, else (nnz, elements * points)."""
        test, trial = self._test, self._trial
        tables = [(test.tables[i], trial.tables[j]) for i, j in pairs]
        constant = all(left.shape[1] == right.shape[1] == 1 for left, right in tables)
        elements, points = test.quadrature.weights.shape
        per_element = 1 if constant else points
        shape = (*self._pattern.slots.shape, per_element)
        if np.prod(shape) > _LARGEST_MAP:
            return None
        local = test.quadrature.weights.new_zeros(shape)
        for (i, j), (left, right) in zip(pairs, tables, strict=True):
            part = left[..., :, None] * right[..., None, :]
            local[test.part(i), trial.part(j)] += part.permute(2, 3, 0, 1)
        values = local.cpu().numpy()
        rows = np.broadcast_to(self._pattern.slots.cpu().numpy()[..., None], values.shape)
        columns = np.broadcast_to(np.arange(elements * per_element).reshape(elements, per_element), values.shape)
        kept = (values != 0.0) & (rows < self._pattern.entries)
        size = (self._pattern.entries, elements * per_element)
        matrix = sp.csr_matrix((values[kept], (rows[kept], columns[kept])), shape=size)
        return torch_csr(matrix, test.quadrature.weights.device)


Slots = tuple[tuple[np.ndarray, np.ndarray], np.ndarray]


def _slots(test: np.ndarray, trial: np.ndarray, shape: tuple[int, int]) -> Slots:
    """Pattern and slots of functions (elements, a) against others (elements, b), by sorting all pairs."""
    cells = len(test), test.shape[1], trial.shape[1]
    rows = np.broadcast_to(test.T[:, None], (cells[1], cells[2], cells[0])).reshape(-1)
    columns = np.broadcast_to(trial.T[None], (cells[1], cells[2], cells[0])).reshape(-1)
    kept = None
    if (test < 0).any() or (trial < 0).any():
        kept = np.flatnonzero((rows >= 0) & (columns >= 0))
        rows, columns = rows[kept], columns[kept]
    order = lexical_order((rows, columns), max(shape))
    rows, columns = rows[order], columns[order]
    first = first_of_equal((rows, columns))
    number = np.cumsum(first, dtype=np.int32 if len(first) < 2**31 else np.int64) - 1
    slots = np.full(cells[0] * cells[1] * cells[2], first.sum(), dtype=number.dtype)
    slots[order if kept is None else kept[order]] = number
    counts = np.bincount(rows[first], minlength=shape[0])
    return (np.append(0, np.cumsum(counts)), columns[first]), slots.reshape(cells[1], cells[2], cells[0])


def _symmetric_slots(dofs: np.ndarray, size: int) -> Slots | None:
    """The same for one set of functions: only pairs of different functions are sorted, each of them once.

    The pattern is symmetric. Its entries beside the diagonal are the edges of a graph, each of which is one entry above
    the diagonal and one below it. None where an element has a function twice.
    """
    local = [(a, b) for a in range(dofs.shape[1]) for b in range(a)]
    if not local:
        return None
    one, other = (np.stack([dofs[:, pair[k]] for pair in local]).reshape(-1) for k in range(2))
    low, high = np.minimum(one, other), np.maximum(one, other)
    del one, other
    if ((low == high) & (low >= 0)).any():
        return None
    kept = None if low.min(initial=0) >= 0 else np.flatnonzero(low >= 0)
    if kept is not None:
        low, high = low[kept], high[kept]
    if not len(low):
        return None
    order = lexical_order((low, high), size)
    first = first_of_equal((low := low[order], high := high[order]))
    number = np.cumsum(first, dtype=np.int32 if len(first) < 2**31 else np.int64) - 1
    low, high = low[first], high[first]
    edge = np.full(len(local) * len(dofs), len(low), dtype=number.dtype)
    edge[order if kept is None else kept[order]] = number
    del order, kept, number
    csr, above, below, diagonal = _graph(low, high, np.bincount(dofs[dofs >= 0], minlength=size) > 0)
    slots = np.empty((dofs.shape[1], dofs.shape[1], len(dofs)), dtype=above.dtype)
    for (a, b), edges in zip(local, edge.reshape(len(local), -1), strict=True):
        # Row a of the matrix of an element is above the diagonal where its number is the smaller one.
        upper = dofs[:, a] < dofs[:, b]
        slots[a, b] = np.where(upper, above[edges], below[edges])
        slots[b, a] = np.where(upper, below[edges], above[edges])
    for a in range(dofs.shape[1]):
        slots[a, a] = diagonal[dofs[:, a]]
    return csr, slots


def _graph(
    low: np.ndarray, high: np.ndarray, present: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """The symmetric pattern with given edges low < high, sorted, and diagonal entries where they are present.

    Returns:
        (indptr, indices), and the entries of each edge above and below the diagonal and of each diagonal, each with the
        number of all entries appended.
    """
    size = len(present)
    before, after = np.bincount(high, minlength=size), np.bincount(low, minlength=size)
    pointers = np.append(0, np.cumsum(before + present + after))
    count = int(pointers[-1])
    index = np.int32 if count < 2**31 else np.int64
    above, below = np.full(len(low) + 1, count, dtype=index), np.full(len(low) + 1, count, dtype=index)
    diagonal = np.full(size + 1, count, dtype=index)
    # An entry follows those of its row that come first; edges are in the order of their rows above the diagonal.
    above[:-1] = (pointers[:-1] + before + present - (np.cumsum(after) - after))[low] + np.arange(len(low))
    order = lexical_order((high,), size)
    below[order] = (pointers[:-1] - (np.cumsum(before) - before))[high[order]] + np.arange(len(low))
    rows = np.flatnonzero(present)
    diagonal[rows] = (pointers[:-1] + before)[rows]
    columns = np.empty(count, dtype=index)
    columns[above[:-1]], columns[below[:-1]], columns[diagonal[rows]] = high, low, rows
    return (pointers, columns), above, below, diagonal


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one is other or np.array_equal(one, other)
