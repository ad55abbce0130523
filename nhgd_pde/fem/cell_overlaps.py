"""Pairs of cells that have inner points in common: no plane separates them."""

from __future__ import annotations

import numpy as np
import skfem

from .boundary_checks import normals_of, same_place, thickness_of
from .boxes import BoxTree

# Number of pairs that are examined at the same time; it limits the memory.
_AT_ONCE = 20_000
# Edges whose cross product is shorter than this share of the product of their lengths count as parallel.
_PARALLEL = 1e-10


def overlapping_pair(mesh: skfem.Mesh, some: np.ndarray, precision: float, step: float) -> tuple[int, int] | None:
    """Two cells of a mesh in the plane or in space that overlap; None where no two do.

    Two convex sets overlap if and only if their images on all normals of facets, and in space also on all cross
    products of two edges, overlap (separating axis theorem). Images must overlap by more than the distance below which
    two places are the same. Hexahedra with facets that are not plane may also overlap by half of the warp.

    Args:
        mesh: a mesh with convex cells.
        some: indices of the cells of which one must be the first of the pair.
        precision: relative rounding of the coordinates.
        step: absolute rounding of the coordinates.
    """
    points = np.ascontiguousarray(mesh.p.T)
    corners = points[mesh.t.T]
    low, high = corners.min(axis=1), corners.max(axis=1)
    tree = BoxTree(low, high)
    for query, other in tree.meeting(low[some], high[some]):
        one = some[query]
        different = one != other
        one, other = one[different], other[different]
        for first in range(0, len(one), _AT_ONCE):
            pair = np.stack([one, other])[:, first : first + _AT_ONCE]
            both = corners[pair[0]], corners[pair[1]]
            # Most pairs are neighbours, which the plane of a facet separates.
            margins = _margins(mesh, points, both, precision, step)
            for axes in (_normals, _crosses):
                parted = _parted(both, axes(mesh, both), margins)
                pair, margins = pair[:, ~parted], margins[~parted]
                both = both[0][~parted], both[1][~parted]
            if pair.shape[1]:
                return int(pair[0, 0]), int(pair[1, 0])
    return None


def _margins(
    mesh: skfem.Mesh, points: np.ndarray, both: tuple[np.ndarray, np.ndarray], precision: float, step: float
) -> np.ndarray:
    """(pairs,) the length by which the images of two cells may overlap."""
    found = []
    for corners in both:
        margin = same_place(points, thickness_of(mesh, corners.swapaxes(0, 1)), precision, step)
        facets = corners[:, np.array(mesh.elem.refdom.facets)]
        if facets.shape[2] == 4:
            warp = facets[:, :, ::2].sum(axis=2) - facets[:, :, 1::2].sum(axis=2)
            margin = margin + 0.5 * np.linalg.norm(warp, axis=2).max(axis=1)
        found.append(margin)
    return np.minimum(*found) if len(mesh.t) != 8 else np.maximum(*found)


def _normals(mesh: skfem.Mesh, both: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(pairs, axes, dim) normals of the facets of both cells."""
    return normals_of(np.concatenate([corners[:, np.array(mesh.elem.refdom.facets)] for corners in both], axis=1))


def _crosses(mesh: skfem.Mesh, both: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(pairs, axes, 3) cross products of all edges of one cell with all edges of the other; none in the plane."""
    if mesh.dim() == 2:
        return np.zeros((len(both[0]), 0, 2))
    ends = np.array(mesh.elem.refdom.edges)
    one, other = (corners[:, ends[:, 1]] - corners[:, ends[:, 0]] for corners in both)
    return np.cross(one[:, :, None], other[:, None]).reshape(len(one), len(ends) ** 2, 3)


def _parted(both: tuple[np.ndarray, np.ndarray], axes: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """(pairs,) whether the images of two cells on one of the axes overlap by no more than the margin."""
    # Lengths are measured from a vertex, so that a place far from the origin does not increase their rounding.
    origin = both[0][:, :1]
    size = max(float(np.abs(corners - origin).max(initial=0.0)) for corners in both)
    length = np.linalg.norm(axes, axis=2)
    found = np.zeros(len(axes), dtype=bool)
    if axes.shape[1] and size:
        images = [np.einsum("pvd,pad->pav", corners - origin, axes) for corners in both]
        depth = np.minimum(images[0].max(2), images[1].max(2)) - np.maximum(images[0].min(2), images[1].min(2))
        longest = length.max(axis=1, keepdims=True)
        known = length > _PARALLEL * longest
        found = (known & (depth <= margins[:, None] * length)).any(axis=1)
    return found
