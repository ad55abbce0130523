"""Flat meshes in space, mapped to coordinates in the plane or on the line without changing distances."""

from __future__ import annotations

import numpy as np

# Largest distance from the plane that counts as rounding of the file, relative to the size of the mesh. The relative
# change of lengths by the projection is the square of this number.
_FLAT = 1e-6
# An axis is perpendicular to the plane if its projection is shorter than this number.
_PERPENDICULAR = 1e-3


class NotFlatError(ValueError):
    """Vertices that do not lie in a plane, or on a line; with the vertex of the largest distance, and this distance."""

    def __init__(self, index: int, distance: float) -> None:
        super().__init__(f"vertex {index} is {distance:.3g} away")
        self.index, self.distance = index, distance


def flattened(points: np.ndarray, dim: int, rounding: float = 0.0) -> np.ndarray:
    """Coordinates (n, dim) of points (n, d) that lie in an affine subspace of dimension dim.

    Where all but dim coordinates are constant, these dim coordinates are returned. Otherwise the new axes are the
    orthogonal projections of the axes x, y, z, made orthonormal one after the other (Gram and Schmidt); an axis without
    a component in the rest of the subspace is left out. The origin is mapped to the origin. Distances do not change.

    Raises:
        NotFlatError: the points do not lie in such a subspace, up to a millionth of their largest extent or rounding.
    """
    if points.shape[1] == dim:
        return points
    extents = np.ptp(points, axis=0)
    tolerance = max(_FLAT * extents.max(), rounding)
    # The coordinates with the least extents are dropped; of equal extents the last ones.
    dropped = sorted(range(len(extents)), key=lambda k: (extents[k], -k))[: len(extents) - dim]
    if (extents[dropped] <= tolerance).all():
        return np.delete(points, dropped, axis=1)
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(np.linalg.qr(centred, mode="r"))
    off = np.linalg.norm(centred @ axes[dim:].T, axis=1)
    if off.max() > tolerance:
        farthest = int(np.argmax(off))
        raise NotFlatError(farthest, float(off[farthest]))
    return points @ _upright(axes[:dim]).T


def _upright(span: np.ndarray) -> np.ndarray:
    """An orthonormal basis (dim, d) of the span of orthonormal rows (dim, d), as near to the axes as possible."""
    basis: list[np.ndarray] = []
    for axis in np.eye(span.shape[1]):
        image = span.T @ (span @ axis)
        for before in basis:
            image = image - (image @ before) * before
        length = np.linalg.norm(image)
        if length > _PERPENDICULAR and len(basis) < len(span):
            basis.append(image / length)
    return np.array(basis)
