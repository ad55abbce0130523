"""Images of values on many triangles by sampling: each triangle is met by a lattice of points, binned into pixels."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

# Pixels along the longer side of an image.
_PIXELS = 420
# Most points of the lattice along an edge of a triangle: a triangle is not longer than the image.
_MOST = 2 * _PIXELS
# Samples that are made at a time, which bounds the memory.
_AT_ONCE = 2_000_000


class Raster:
    """The pixels that the triangles of a plane cover, for images of any values there.

    Args:
        points: (N, 2) coordinates.
        triangles: (M, 3) numbers of points.
    """

    def __init__(self, points: np.ndarray, triangles: np.ndarray) -> None:
        self._points, self._triangles = points, triangles
        self._low = points.min(axis=0)
        size = points.max(axis=0) - self._low
        self._pixel = float(size.max()) / _PIXELS
        self._columns, self._rows = (max(math.ceil(length / self._pixel), 1) for length in size)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the image."""
        right, top = self._low + np.array([self._columns, self._rows]) * self._pixel
        return float(self._low[0]), float(right), float(self._low[1]), float(top)

    @cached_property
    def _samples(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of triangles (m,), the barycentric coordinates (k, 3) of their samples, and the pixels (m, k)."""
        corners = self._points[self._triangles]
        longest = np.sqrt(np.max(np.sum((corners - np.roll(corners, 1, axis=1)) ** 2, axis=2), axis=1))
        # Neighbouring samples are at most a pixel apart, so that no pixel inside a triangle stays empty.
        steps = np.clip(np.ceil(longest / self._pixel), 1, _MOST).astype(int)
        found = []
        for count in np.unique(steps):
            shares = _lattice(int(count))
            chosen = np.flatnonzero(steps == count)
            block = max(_AT_ONCE // len(shares), 1)
            for own in (chosen[start : start + block] for start in range(0, len(chosen), block)):
                column, row = (
                    np.minimum(((corners[own, :, k] @ shares.T - self._low[k]) / self._pixel).astype(np.int32), most)
                    for k, most in enumerate((self._columns - 1, self._rows - 1))
                )
                found.append((own, shares, row * np.int32(self._columns) + column))
        return found

    def image(self, values: np.ndarray, at_points: bool) -> np.ndarray:
        """The mean values (rows, columns) in the pixels, the lowest y first; NaN where there is no triangle.

        Args:
            values: (N,) at the points, or (M,) in the triangles.
        """
        size = self._rows * self._columns
        sums, counts = np.zeros(size), np.zeros(size)
        for own, shares, pixels in self._samples:
            if at_points:
                found = values[self._triangles[own]] @ shares.T
            else:
                found = np.broadcast_to(values[own, None], pixels.shape)
            seen = np.isfinite(found)
            sums += np.bincount(pixels[seen], found[seen], size)
            counts += np.bincount(pixels[seen], minlength=size)
        means = np.full(size, np.nan)
        np.divide(sums, counts, out=means, where=counts > 0)
        return means.reshape(self._rows, self._columns)


def _lattice(count: int) -> np.ndarray:
    """Barycentric coordinates (k, 3) of the centroids of the `count`^2 equal parts that a triangle is cut into."""
    first, second = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    upright, inverted = first + second < count, first + second < count - 1
    pairs = np.concatenate(
        [
            np.stack([first[chosen], second[chosen]], axis=1) + shift
            for chosen, shift in ((upright, 1 / 3), (inverted, 2 / 3))
        ]
    )
    pairs /= count
    return np.column_stack([1.0 - pairs.sum(axis=1), pairs])
