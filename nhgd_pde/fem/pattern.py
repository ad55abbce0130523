"""Sparsity patterns of matrices of two spaces, and the maps from coefficients at the points to their entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.sparse import torch_csr

if TYPE_CHECKING:
    from .evaluation_operator import EvaluationOperator

# (i, j) -> the coefficient (S or 1, elements, points) of component i of the test function times component j of the
# trial function; absent pairs have the coefficient zero. Component 0 is the value and 1, 2, ... are the partial
# derivatives; the components of a second field follow.
Blocks = Mapping[tuple[int, int], Tensor]

# Largest number of entries of a map, each of which takes 12 bytes.
_LARGEST_MAP = 30_000_000


class Pattern:
    """The sparsity pattern of a matrix of two spaces, and the places of the entries of every element's matrix in it."""

    def __init__(self, test: EvaluationOperator, trial: EvaluationOperator) -> None:
        # A pattern is found by the identity of the dofs of the trial functions, so these must stay alive.
        self._test, self._trial = test, trial
        self._maps: dict[tuple[tuple[int, int], ...], Tensor | None] = {}
        rows = test.dofs[:, :, None].astype(np.int64)
        columns = trial.dofs[:, None, :].astype(np.int64)
        keys = np.where((rows < 0) | (columns < 0), -1, rows * trial.size + columns).reshape(-1)
        order = np.argsort(keys, kind="stable")
        order = order[np.searchsorted(keys[order], 0) :]
        ordered = keys[order]
        first = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, dtype=bool)
        unique = ordered[first]
        counts = np.bincount(unique // trial.size, minlength=test.size)
        index = np.int32 if max(len(unique), trial.size) < 2**31 else np.int64
        self.csr = (
            np.concatenate([[0], np.cumsum(counts)]).astype(index),
            (unique % trial.size).astype(index),
        )
        device = test.quadrature.weights.device
        self._entries = len(unique)
        self._order = torch.from_numpy(order).to(device)
        self._slot = torch.from_numpy(np.cumsum(first) - 1).to(device)

    def scatter(self, local: Tensor) -> Tensor:
        """Element matrices (S, elements, a, b) -> CSR data (S, nnz)."""
        flat = local.reshape(local.shape[0], -1)[:, self._order]
        return flat.new_zeros(local.shape[0], self._entries).index_add_(1, self._slot, flat)

    def by_maps(self, blocks: Blocks) -> Tensor | None:
        """CSR data (S, nnz) of one matrix for each scenario, by products of sparse maps with the coefficients.

        A map is made once for every set of pairs that share a coefficient. None if a map would be too large.
        """
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
        shape = (elements, per_element, test.dofs.shape[1], trial.dofs.shape[1])
        if np.prod(shape) > _LARGEST_MAP:
            return None
        local = test.quadrature.weights.new_zeros(shape)
        for (i, j), (left, right) in zip(pairs, tables, strict=True):
            local[:, :, test._parts[i], trial._parts[j]] += left[..., :, None] * right[..., None, :]
        # The entries are in the order of `scatter` and have its slots.
        values = local.movedim(1, -1).reshape(-1, per_element)[self._order].cpu().numpy().reshape(-1)
        element = self._order.cpu().numpy() // (shape[2] * shape[3])
        columns = (element[:, None] * per_element + np.arange(per_element)).reshape(-1)
        rows = np.repeat(self._slot.cpu().numpy(), per_element)
        kept = values != 0.0
        size = (self._entries, elements * per_element)
        matrix = sp.csr_matrix((values[kept], (rows[kept], columns[kept])), shape=size)
        return torch_csr(matrix, test.quadrature.weights.device)
