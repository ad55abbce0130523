"""The Pareto front: runs of which no other one is as good in every quantity and better in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .table_rows import measure


def front(values: np.ndarray) -> np.ndarray:
    """(n,) whether no other row of values (n, quantities), all to be small, is at least as small and differs."""
    kept = np.ones(len(values), dtype=bool)
    for k, row in enumerate(values):
        better = (values <= row).all(axis=1) & (values < row).any(axis=1)
        kept[k] = not better.any()
    return kept


def traded(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The Pareto front of runs that have ended.

    Returns:
        `of`: the names; `runs` of the front, sorted by the first quantity, and their `values`.
    """
    numbers = [[measure(row, name) for name in names] for row in rows]
    whole = [(row, each) for row, each in zip(rows, numbers, strict=True) if None not in each]
    values = np.array([each for _, each in whole], dtype=float).reshape(-1, len(names))
    finite = np.isfinite(values).all(axis=1)
    kept = np.flatnonzero(finite)[front(values[finite])]
    order = sorted(kept, key=lambda k: tuple(values[k]))
    return {
        "of": list(names),
        "runs": [whole[k][0]["run"] for k in order],
        "values": [values[k].tolist() for k in order],
    }


def sentence(found: Mapping[str, Any], count: int) -> str:
    """The size of the front, for people."""
    numbers = ", ".join(map(str, found["runs"]))
    return f"Pareto front of {' and '.join(found['of'])}: {len(found['runs'])} of {count} runs ({numbers})"
