"""Whether the boundary of a mesh is one: facets that touch without being shared, that cross, or that lie in cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import skfem
from scipy.spatial import KDTree

from .boxes import BoxTree

# Two places are the same when they are nearer to each other than this share of the extent of the mesh, which is more
# than the rounding of files, and than this share of the thickness of the cells there.
_SAME, _THIN = 1e-8, 1e-3
# Rays from cells that are followed through the boundary stop after this many boxes, for the sake of time.
_MOST_HITS = 20_000_000
# Weights of an inner point of a cell that lies on no plane of a regular mesh.
_GENERIC = np.array([1.0, 0.7320508, 0.8541020, 0.9142136, 0.7912878, 0.8989795, 0.6457513, 0.8360680])


@dataclass(frozen=True)
class Outline:
    """The facets of the boundary of a mesh, cut into simplices (segments, triangles).

    Attributes:
        points: (n, dim) vertices of the mesh.
        facets: (facets, vertices) vertices of each, in turn around it.
        vertices: (m, dim) vertices of the simplices.
        facet: (m,) which facet a simplex is from.
        tolerances: (facets,) distance below which two places at a facet are the same.
        depths: (facets,) how far facets must pass through each other to cross: that, and the warp of a facet that is
            not plane.
        inside: (facets, dim) a point in the cell of each facet.
    """

    points: np.ndarray
    facets: np.ndarray
    vertices: np.ndarray
    facet: np.ndarray
    tolerances: np.ndarray
    depths: np.ndarray
    inside: np.ndarray

    @staticmethod
    def of(mesh: skfem.Mesh, precision: float) -> Outline:
        points = np.ascontiguousarray(mesh.p.T)
        indices = mesh.boundary_facets()
        cells = mesh.f2t[0, indices]
        local = np.argmax(mesh.t2f[:, cells] == indices, axis=0)
        corners = mesh.t[:, cells]
        facets = corners[np.array(mesh.elem.refdom.facets)[local].T, np.arange(len(cells))].T
        weights = _GENERIC[: len(corners)] / _GENERIC[: len(corners)].sum()
        inside = np.einsum("v,vfd->fd", weights, points[corners])
        tolerances = same_place(points, _thickness(mesh, points[corners]), precision)
        # Outward: the inner point lies behind.
        first = points[facets[:, 0]]
        if facets.shape[1] == 2:
            normals = _turned(points[facets[:, 1]] - first)
        else:
            normals = np.cross(points[facets[:, 1]] - first, points[facets[:, -1]] - first)
        turned = ((inside - first) * normals).sum(axis=1) > 0.0
        facets[turned] = facets[turned, ::-1]
        if facets.shape[1] < 4:
            vertices, facet, depths = facets, np.arange(len(facets)), tolerances
        else:
            vertices = np.concatenate([facets[:, [0, 1, 2]], facets[:, [0, 2, 3]]])
            facet = np.tile(np.arange(len(facets)), 2)
            a, b, c, d = points[facets].swapaxes(0, 1)
            depths = tolerances + 0.5 * np.linalg.norm(a - b + c - d, axis=1)
        return Outline(points, facets, vertices, facet, tolerances, depths, inside)

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest coordinates of each simplex, with its tolerance."""
        corners, margin = self.points[self.vertices], self.tolerances[self.facet][:, None]
        return corners.min(axis=1) - margin, corners.max(axis=1) + margin

    def near(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of simplices of two facets whose boxes meet, each pair in both orders, part by part."""
        low, high = self.boxes()
        for one, other in BoxTree(low, high).meeting(low, high):
            apart = self.facet[one] != self.facet[other]
            yield one[apart], other[apart]


def same_place(points: np.ndarray, thickness: np.ndarray, precision: float) -> np.ndarray:
    """The distance below which two places are the same, of a mesh with vertices (n, dim), at cells of some thickness.

    Args:
        points: the vertices.
        thickness: of the cells at the places in question.
        precision: relative rounding of the coordinates.
    """
    rounding = 4.0 * np.finfo(float).eps * np.abs(points).max()
    same = max(_SAME, 8.0 * precision) * np.ptp(points, axis=0).max()
    return np.maximum(np.minimum(same, _THIN * thickness), rounding)


def _turned(along: np.ndarray) -> np.ndarray:
    """(..., 2) at right angles to the right of a direction, which is outward of what is gone around anticlockwise."""
    return np.stack([along[..., 1], -along[..., 0]], axis=-1)


def _thickness(mesh: skfem.Mesh, corners: np.ndarray) -> np.ndarray:
    """(cells,) the least singular value of the map from the reference cell, given corners (vertices, cells, dim)."""
    middle = np.array(mesh.elem.refdom.p).mean(axis=1)[:, None]
    gradients = np.stack([mesh.elem().lbasis(middle, i)[1][:, 0] for i in range(len(corners))])
    maps = np.einsum("vcd,vk->cdk", corners - corners[:1], gradients)
    return np.linalg.svd(maps, compute_uv=False)[:, -1]


def split_vertices(outline: Outline) -> np.ndarray:
    """(k, 2) pairs of vertices of the boundary that stand at the same place."""
    used, first = np.unique(outline.facets, return_inverse=True)
    tolerances = np.full(len(used), np.inf)
    np.minimum.at(tolerances, first.reshape(outline.facets.shape), outline.tolerances[:, None])
    # Few cells are so small that more than some vertices lie in the tolerance of the others.
    count = min(4, len(used))
    tree = KDTree(outline.points[used])
    distances, near = tree.query(outline.points[used], k=count, distance_upper_bound=2.0 * tolerances.max())
    one, slot = np.nonzero(np.isfinite(distances))
    other = near[one, slot]
    same = (distances[one, slot] <= np.minimum(tolerances[one], tolerances[other])) & (one < other)
    return np.stack([used[one[same]], used[other[same]]], axis=1)


def unmatched_facets(outline: Outline) -> tuple[int, int | None] | None:
    """A facet with a vertex of another facet inside, and that vertex; None in its place where facets cross edges."""
    for one, other in outline.near():
        tolerance = np.minimum(outline.tolerances[outline.facet[one]], outline.tolerances[outline.facet[other]])
        corners, ends = outline.points[outline.vertices[one]], outline.vertices[other]
        for k in range(ends.shape[1]):
            foreign = ~(outline.vertices[one] == ends[:, k : k + 1]).any(axis=1)
            rows = np.flatnonzero(foreign)
            touching = _distance(outline.points[ends[rows, k]], corners[rows]) <= tolerance[rows]
            if touching.any():
                pair = rows[np.argmax(touching)]
                return int(outline.facet[one[pair]]), int(ends[pair, k])
        if outline.dim == 3:
            crossing = _edges_cross(outline, one, other, tolerance)
            if len(crossing):
                return int(outline.facet[one[crossing[0]]]), None
    return None


def _distance(points: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """(n,) how far points (n, dim) are from simplices (n, dim, dim), segments or triangles."""
    a, b = simplices[:, 0], simplices[:, 1]
    if simplices.shape[1] == 2:
        return _distance_to_segment(points, a, b)
    c = simplices[:, 2]
    edges = [_distance_to_segment(points, *ends) for ends in ((a, b), (b, c), (c, a))]
    normal = np.cross(b - a, c - a)
    square = (normal**2).sum(axis=1)
    over = np.ones(len(points), dtype=bool)
    for start, end in ((a, b), (b, c), (c, a)):
        over &= (np.cross(end - start, points - start) * normal).sum(axis=1) >= 0.0
    height = np.abs(((points - a) * normal).sum(axis=1)) / np.sqrt(np.where(square > 0.0, square, 1.0))
    return np.where(over & (square > 0.0), height, np.minimum.reduce(edges))


def _distance_to_segment(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    along = b - a
    square = (along**2).sum(axis=1)
    share = ((points - a) * along).sum(axis=1) / np.where(square > 0.0, square, 1.0)
    return np.linalg.norm(points - a - np.clip(share, 0.0, 1.0)[:, None] * along, axis=1)


def _edges_cross(outline: Outline, one: np.ndarray, other: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Pairs of triangles of which an edge each cross in a point inside of both."""
    for i, j in product(range(3), repeat=2):
        first = outline.vertices[one][:, [i, (i + 1) % 3]]
        second = outline.vertices[other][:, [j, (j + 1) % 3]]
        rows = np.flatnonzero((first[:, :, None] != second[:, None, :]).all(axis=(1, 2)))
        a, b = outline.points[first[rows]].swapaxes(0, 1)
        c, d = outline.points[second[rows]].swapaxes(0, 1)
        u, v, w = b - a, d - c, c - a
        normal = np.cross(u, v)
        square = (normal**2).sum(axis=1)
        parallel = square <= 1e-16 * (u**2).sum(axis=1) * (v**2).sum(axis=1)
        safe = np.where(parallel, 1.0, square)
        s = (np.cross(w, v) * normal).sum(axis=1) / safe
        t = (np.cross(w, u) * normal).sum(axis=1) / safe
        gap = np.abs((w * normal).sum(axis=1)) / np.sqrt(safe)
        crossing = ~parallel & (s > 0.0) & (s < 1.0) & (t > 0.0) & (t < 1.0) & (gap <= tolerance[rows])
        if crossing.any():
            return rows[crossing]
    return np.arange(0)


def overlap(outline: Outline) -> int | None:
    """A facet that crosses another one, or beside which more than one cell lies over a point of its own cell."""
    for one, other in outline.near():
        crossing = _crossing(outline, one, other)
        if len(crossing):
            return int(outline.facet[one[crossing[0]]])
    return _covered(outline)


def _crossing(outline: Outline, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pairs of simplices that pass through each other, by more than the depth of their facets."""
    corners, ends = outline.points[outline.vertices[one]], outline.points[outline.vertices[other]]
    depth = np.maximum(outline.depths[outline.facet[one]], outline.depths[outline.facet[other]])
    if outline.dim == 2:
        sides = [_heights(corners, ends), _heights(ends, corners)]
        through = [(np.abs(side) > depth).all(axis=0) & (side[0] * side[1] < 0.0) for side in sides]
        return np.flatnonzero(through[0] & through[1])
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    heights = ((ends - corners[:, :1]) * normal[:, None]).sum(axis=2).T / np.where(length > 0.0, length, 1.0)
    found = np.zeros(len(one), dtype=bool)
    for k in range(3):
        p, q = k, (k + 1) % 3
        rows = np.flatnonzero((heights[p] * heights[q] < 0.0) & (np.minimum(*np.abs(heights[[p, q]])) > depth))
        share = heights[p, rows] / (heights[p, rows] - heights[q, rows])
        at = ends[rows, p] + share[:, None] * (ends[rows, q] - ends[rows, p])
        within = np.ones(len(rows), dtype=bool)
        for i in range(3):
            start, end = corners[rows, i], corners[rows, (i + 1) % 3]
            span = np.linalg.norm(end - start, axis=1)
            inward = (np.cross(end - start, at - start) * normal[rows]).sum(axis=1) / np.where(span > 0.0, span, 1.0)
            within &= inward > depth[rows] * length[rows]
        found[rows[within]] = True
    return np.flatnonzero(found)


def _heights(segments: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(2, n) signed distances of two points each, (n, 2, 2), from the lines through segments (n, 2, 2)."""
    along = segments[:, 1] - segments[:, 0]
    length = np.linalg.norm(along, axis=1)
    normal = _turned(along) / np.where(length > 0.0, length, 1.0)[:, None]
    return ((points - segments[:, :1]) * normal[:, None]).sum(axis=2).T


def _covered(outline: Outline) -> int | None:
    """A facet beside which more than one cell lies over the inner point of its own cell.

    The number of cells over a point is how often a ray along x leaves the mesh minus how often it enters.
    """
    low, high = outline.boxes()
    tree, hits = BoxTree(low, high), 0
    # A stride that has no factor in common with the number of facets visits all of them, far from each other first.
    count = len(outline.inside)
    stride = next(k for k in range(int(0.618 * count) + 1, 2 * count + 2) if np.gcd(k, count) == 1)
    order = np.arange(count) * stride % count
    for first in range(0, count, 2000):
        some = order[first : first + 2000]
        start = outline.inside[some]
        end = start.copy()
        end[:, 0] = np.inf
        layers = np.zeros(len(some))
        for ray, simplex in tree.meeting(start, end):
            hits += len(ray)
            layers += np.bincount(ray, _passing(outline, start[ray], simplex), minlength=len(some))
        if (layers > 1.5).any():
            return int(some[np.argmax(layers > 1.5)])
        if hits > _MOST_HITS:
            break
    return None


def _passing(outline: Outline, start: np.ndarray, simplex: np.ndarray) -> np.ndarray:
    """1 where a ray along x from a point leaves through a simplex, -1 where it enters, 0 where it misses it."""
    corners = outline.points[outline.vertices[simplex]] - start[:, None]
    if outline.dim == 2:
        a, b = corners[:, 0], corners[:, 1]
        # Half open, so that a vertex counts for one of its two segments.
        meets = (a[:, 1] <= 0.0) != (b[:, 1] <= 0.0)
        rise = b[:, 1] - a[:, 1]
        ahead = (a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]) * np.sign(rise) > 0.0
        return np.where(meets & ahead, np.sign(rise), 0.0)
    flat = corners[:, :, 1:]
    turns = [_cross2(flat[:, i], flat[:, (i + 1) % 3]) for i in range(3)]
    sign = np.sign(np.sum(turns, axis=0))
    meets = np.all([turn * sign > 0.0 for turn in turns], axis=0)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # The x of the plane through the triangle over the start of the ray is (corner . normal) / normal_x.
    ahead = (corners[:, 0] * normal).sum(axis=1) * np.sign(normal[:, 0]) > 0.0
    return np.where(meets & ahead, np.sign(normal[:, 0]), 0.0)


def _cross2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
