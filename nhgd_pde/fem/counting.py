"""Sorting by counting: rows of small integers, such as the vertices of facets, in a time linear in their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp


def lexical_order(columns: Sequence[np.ndarray] | np.ndarray, bound: int) -> np.ndarray:
    """(n,) the order of rows of integers, by the first column, then by the second, and so on; equal rows stay in order.

    There is one stable counting sort per column, from the last to the first: the conversion of a sparse matrix with one
    entry per row from rows to columns. For the vertices of a large mesh it takes less time than sorting keys.

    Args:
        columns: (n,) each, at least 0 and below `bound`.
        bound: the number of different integers.
    """
    order: np.ndarray | None = None
    count = len(columns[0])
    index = np.int32 if max(count, bound) < 2**31 else np.int64
    rows, marks = np.arange(count + 1, dtype=index), np.ones(count, dtype=np.int8)
    for column in reversed(columns):
        keys = column if order is None else column[order]
        one = sp.csr_array((marks, keys.astype(index, copy=False), rows), shape=(count, bound))
        sorted_rows = one.tocsc().indices
        order = sorted_rows if order is None else order[sorted_rows]
    assert order is not None
    return order


def first_of_equal(columns: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """(n,) whether each of some sorted rows differs from the one before it."""
    found = np.zeros(len(columns[0]), dtype=bool)
    found[:1] = True
    for column in columns:
        found[1:] |= column[1:] != column[:-1]
    return found
