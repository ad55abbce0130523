"""Meshes of surfaces and lines in space, laid isometrically into the plane or onto the line."""

from __future__ import annotations

import numpy as np

# Distance from the plane, relative to the size of the mesh, that counts as rounding of the file. Lengths change by
# the square of this number, relative to themselves.
_FLAT = 1e-6
# An axis whose image in the plane is shorter than this is perpendicular to the plane.
_PERPENDICULAR = 1e-3


class NotFlatError(ValueError):
    """Vertices that do not lie in a plane, or on a line.

    Attributes:
        index: the vertex that is farthest from it.
        distance: how far that one is away.
    """

    def __init__(self, index: int, distance: float) -> None:
        super().__init__(f"vertex {index} is {distance:.3g} away")
        self.index, self.distance = index, distance


def flattened(points: np.ndarray, dim: int, rounding: float = 0.0) -> np.ndarray:
    """Coordinates (n, dim) of points (n, d) that lie in an affine subspace of dimension dim.

    Where all but dim coordinates are constant, the other ones are kept as they are, in their order. Else the new axes
    are the images of the axes x, y, z under the orthogonal projection, made orthonormal one after the other (Gram and
    Schmidt); an axis that is perpendicular to the subspace and those before it is left out. The origin is the image of
    the origin. Distances are kept.

    Raises:
        NotFlatError: the points lie in no such subspace, to a millionth of their largest extent or to their rounding.
    """
    if points.shape[1] == dim:
        return points
    extents = np.ptp(points, axis=0)
    tolerance = max(_FLAT * extents.max(), rounding)
    # The least extents go first; of equal ones the later.
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
    """An orthonormal basis (dim, d) of the span of orthonormal rows (dim, d), as near to the axes as that can be."""
    basis: list[np.ndarray] = []
    for axis in np.eye(span.shape[1]):
        image = span.T @ (span @ axis)
        for before in basis:
            image = image - (image @ before) * before
        length = np.linalg.norm(image)
        if length > _PERPENDICULAR and len(basis) < len(span):
            basis.append(image / length)
    return np.array(basis)
