"""Which cells are refined: marking by indicators of the error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Indicators that differ by less than this share are equal: mirrored cells of a symmetric problem are marked together.
_SAME = 1e-9


def doerfler(indicator: np.ndarray, fraction: float) -> np.ndarray:
    """The smallest set of cells with a given share of the total (W. Doerfler, SIAM J. Numer. Anal. 33, 1996).

    Args:
        indicator: (cells,) non-negative contributions of the cells to the error.
        fraction: the share, above 0 and at most 1.

    Returns:
        The numbers of the cells in increasing order; cells whose indicators equal the smallest one of the set are in
        it. Empty where all indicators are zero.
    """
    order = np.argsort(-indicator, kind="stable")
    total = np.cumsum(indicator[order])
    if not total[-1] > 0:
        return order[:0]
    # The last sum may be smaller than a share of 1 of itself only by rounding.
    last = min(int(np.searchsorted(total, fraction * total[-1])), len(order) - 1)
    return np.flatnonzero((indicator >= (1.0 - _SAME) * indicator[order[last]]) & (indicator > 0))


def maximum(indicator: np.ndarray, fraction: float) -> np.ndarray:
    """The cells whose indicators are at least a given share of the largest one."""
    largest = indicator.max()
    return np.flatnonzero((indicator >= (1.0 - _SAME) * fraction * largest) & (indicator > 0))


# The markings by their names in problem files.
MARKINGS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {"doerfler": doerfler, "maximum": maximum}
