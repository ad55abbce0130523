"""Thin gaps between a facet of the boundary and finer facets on the other side of a curved interface."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from .boundary_checks import Outline, normals_of

# Largest width of a gap, relative to the longest edge of the facet. It is 0.134 for an arc over a sixth of a circle.
_WIDTH = 0.15
# Facets face each other if the cosine of the angle between their outward normals is below this number.
_FACING = -0.5


def vertex_over_facet(outline: Outline) -> tuple[int, int] | None:
    """A vertex on the other side of a thin gap before a facet, and that facet; None where there is no such gap.

    Where an interface is curved, vertices of the finer side do not lie on the facets of the coarser side: the two
    surfaces enclose gaps, and have the vertices of the coarser facet in common. In slits, at most one side of a facet
    is shared with the opposite surface.
    """
    ends = outline.points[outline.vertices]
    normals = normals_of(ends)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    one, other = _facing(outline, normals)
    # True for the vertices of a simplex that the opposite surface has too.
    corners = outline.vertices.shape[1]
    common = np.zeros((len(outline.vertices), corners), dtype=bool)
    for i in range(corners):
        shared = np.equal(outline.vertices[one, i, None], outline.vertices[other]).any(axis=1)
        common[one[shared], i] = True
    enclosed = np.asarray(common.all(axis=1))[one]
    one, other = one[enclosed], other[enclosed]
    for i in range(corners):
        vertex = outline.vertices[other, i]
        foreign = (outline.facets[outline.facet[one]] != vertex[:, None]).all(axis=1)
        over = foreign & _over(ends[one], normals[one], outline.points[vertex], outline.tolerances[outline.facet[one]])
        if over.any():
            first = int(np.argmax(over))
            return int(vertex[first]), int(outline.facet[one[first]])
    return None


def _facing(outline: Outline, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of simplices that have a vertex in common and whose outward normals are nearly opposite."""
    count, corners = outline.vertices.shape
    rows = np.repeat(np.arange(count), corners)
    table = sp.csr_array(
        (np.ones(len(rows), dtype=np.int32), (rows, outline.vertices.reshape(-1))), (count, len(outline.points))
    )
    one, other = (table @ table.T).tocoo().coords
    facing = (normals[one] * normals[other]).sum(axis=1) < _FACING
    return one[facing], other[facing]


def _over(ends: np.ndarray, normals: np.ndarray, points: np.ndarray, tolerances: np.ndarray) -> np.ndarray:
    """Which points (n, dim) lie outside over simplices (n, dim, dim), at a height above rounding and below a gap."""
    height = ((points - ends[:, 0]) * normals).sum(axis=1)
    longest = np.linalg.norm(ends - np.roll(ends, 1, axis=1), axis=2).max(axis=1)
    foot = points - height[:, None] * normals
    inner = np.ones(len(points), dtype=bool)
    for i in range(ends.shape[1]):
        # Feet on an edge count, and feet beyond an edge by no more than the width of a gap.
        rest = np.roll(ends, -i, axis=1)
        if ends.shape[1] == 2:
            along = rest[:, 1] - rest[:, 0]
            inner &= ((foot - rest[:, 0]) * along).sum(axis=1) > 0.0
        else:
            inward = np.cross(normals, rest[:, 1] - rest[:, 0])
            inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), np.finfo(float).tiny)
            inner &= ((foot - rest[:, 0]) * inward).sum(axis=1) > -_WIDTH * longest
    return inner & (height > tolerances) & (height < _WIDTH * longest)
