"""A tree of bounding boxes, which finds the pairs of boxes that meet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Number of boxes that are searched for at the same time; it limits the memory.
_AT_ONCE = 50_000
# Number of bits of a coordinate on the space-filling curve.
_BITS = 16


class BoxTree:
    """A binary tree over axis-parallel boxes, in the order of a space-filling curve.

    Args:
        low: (n, dim) least coordinates of each box, n at least 1.
        high: (n, dim) greatest coordinates of each box.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.order = np.argsort(_morton(0.5 * (low + high)), kind="stable")
        leaves = 1 << max(len(low) - 1, 0).bit_length()
        lows, highs = np.full((low.shape[1], leaves), np.inf), np.full((low.shape[1], leaves), -np.inf)
        lows[:, : len(low)], highs[:, : len(low)] = low[self.order].T, high[self.order].T
        # The levels are built from the leaves to the root, then reversed.
        self.levels = [(lows, highs)]
        while lows.shape[1] > 1:
            lows, highs = np.minimum(lows[:, ::2], lows[:, 1::2]), np.maximum(highs[:, ::2], highs[:, 1::2])
            self.levels.append((lows, highs))
        self.levels.reverse()

    def meeting(self, low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (index of a given box, index of a box of the tree) that have a point in common, in several parts."""
        for first in range(0, len(low), _AT_ONCE):
            least, greatest = (np.ascontiguousarray(each[first : first + _AT_ONCE].T) for each in (low, high))
            query = np.arange(least.shape[1])
            node = np.zeros(len(query), dtype=np.int64)
            for level, (lows, highs) in enumerate(self.levels):
                if level:
                    query = np.repeat(query, 2)
                    node = (2 * node[:, None] + np.arange(2)).reshape(-1)
                for axis in range(len(lows)):
                    meet = lows[axis, node] <= greatest[axis, query]
                    meet &= highs[axis, node] >= least[axis, query]
                    query, node = query[meet], node[meet]
            yield first + query, self.order[node]


def _morton(points: np.ndarray) -> np.ndarray:
    """The place of each point on a Z-order curve through their bounding box."""
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    scaled = (points - low) / np.where(extent > 0.0, extent, 1.0)
    grid = np.minimum((scaled * 2**_BITS).astype(np.int64), 2**_BITS - 1)
    code = np.zeros(len(points), dtype=np.int64)
    for bit in range(_BITS):
        for axis, column in enumerate(grid.T):
            code |= ((column >> bit) & 1) << (bit * grid.shape[1] + axis)
    return code
