"""Checks of the boundary of a mesh: facets that touch without being shared, that cross, or that lie inside cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import skfem

from .boxes import BoxTree

# Two places are the same if their distance is below both shares: the first is relative to the extent of the mesh and
# larger than the rounding of files, the second is relative to the thickness of the cells there.
_SAME, _THIN = 1e-8, 1e-3
# In a file with few digits, rounding moves every coordinate by up to half a step of the last digit, so that one place
# that is written twice has a distance of up to sqrt(3) steps: `_STEPS` is above it. Cells in such a file may be only a
# few steps thick, so that the distance is also at most the share `_THINNEST` of the thickness.
_STEPS, _THINNEST = 2.0, 0.4
# Distance of the point beside a facet from the facet, in units of the depth of the facet.
_BESIDE = 4.0
# Largest number of boxes that are examined along rays from cells; it limits the time.
_MOST_HITS = 20_000_000
# Weights of the vertices of a cell. Their mean is an inner point that lies on no plane of a regular mesh.
_GENERIC = np.array([1.0, 0.7320508, 0.8541020, 0.9142136, 0.7912878, 0.8989795, 0.6457513, 0.8360680])


@dataclass(frozen=True)
class Outline:
    """The facets of the boundary of a mesh, cut into simplices (segments, triangles).

    Attributes:
        points: (n, dim) vertices of the mesh.
        facets: (facets, vertices) the vertices of each facet, in order around it.
        vertices: (m, dim) vertices of the simplices.
        facet: (m,) the facet of each simplex.
        tolerances: (facets,) distance below which two places at a facet are the same.
        depths: (facets,) facets cross if they pass through each other by more than this depth: the tolerance, plus the
            warp of a facet that is not plane.
        inside: (facets, dim) a point in the cell of each facet, just beside the facet.
    """

    points: np.ndarray
    facets: np.ndarray
    vertices: np.ndarray
    facet: np.ndarray
    tolerances: np.ndarray
    depths: np.ndarray
    inside: np.ndarray

    @staticmethod
    def of(mesh: skfem.Mesh, precision: float, step: float = 0.0) -> Outline:
        points = np.ascontiguousarray(mesh.p.T)
        indices = mesh.boundary_facets()
        cells = mesh.f2t[0, indices]
        local = np.argmax(mesh.t2f[:, cells] == indices, axis=0)
        corners = mesh.t[:, cells]
        facets = corners[np.array(mesh.elem.refdom.facets)[local].T, np.arange(len(cells))].T
        tolerances = same_place(points, thickness_of(mesh, points[corners]), precision, step)
        # Vertices are ordered so that normals point outward, away from the centre of the cell.
        ends = points[facets]
        normals = normals_of(ends)
        turned = ((points[corners].mean(axis=0) - ends.mean(axis=1)) * normals).sum(axis=1) > 0.0
        facets[turned] = facets[turned, ::-1]
        if facets.shape[1] < 4:
            vertices, facet, depths = facets, np.arange(len(facets)), tolerances
        else:
            warp = points[facets[:, ::2]].sum(axis=1) - points[facets[:, 1::2]].sum(axis=1)
            # The diagonal on a fixed side is taken, so that both sides of a thin sheet are cut in the same way.
            other = warp @ _GENERIC[1:4] < 0.0
            facets[other] = np.roll(facets[other], 1, axis=1)
            vertices = np.concatenate([facets[:, [0, 1, 2]], facets[:, [0, 2, 3]]])
            facet = np.tile(np.arange(len(facets)), 2)
            depths = tolerances + 0.5 * np.linalg.norm(warp, axis=1)
        middle, inside = _weighted(ends.swapaxes(0, 1)), _weighted(points[corners])
        lengths = np.linalg.norm(normals, axis=1)
        heights = np.abs(((inside - middle) * normals).sum(axis=1)) / np.where(lengths > 0.0, lengths, 1.0)
        share = np.minimum(1.0, _BESIDE * depths / np.where(heights > 0.0, heights, 1.0))
        inside = middle + share[:, None] * (inside - middle)
        return Outline(points, facets, vertices, facet, tolerances, depths, inside)

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    @cached_property
    def tree(self) -> BoxTree:
        """The tree of the bounding boxes of the simplices, enlarged by their tolerances."""
        return BoxTree(*self._boxes(self.vertices, self.tolerances[self.facet]))

    @cached_property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """(k, 2) the vertices of each edge of a facet, and (k,) the least tolerance of its facets."""
        sides = self.facets.shape[1] if self.dim == 3 else 1
        ends = [self.facets[:, [i, (i + 1) % self.facets.shape[1]]] for i in range(sides)]
        pairs, number = np.unique(np.sort(np.concatenate(ends), axis=1), axis=0, return_inverse=True)
        return pairs, self._least(number.reshape(-1), np.tile(self.tolerances, sides))

    @cached_property
    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """The vertices of the facets, and for each the least tolerance of its facets."""
        used, number = np.unique(self.facets, return_inverse=True)
        return used, self._least(number.reshape(-1), np.repeat(self.tolerances, self.facets.shape[1]))

    @staticmethod
    def _least(number: np.ndarray, values: np.ndarray) -> np.ndarray:
        least = np.full(number.max() + 1, np.inf)
        np.minimum.at(least, number, values)
        return least

    def _boxes(self, vertices: np.ndarray, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = self.points[vertices]
        return places.min(axis=1) - margin[:, None], places.max(axis=1) + margin[:, None]

    def near_corners(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Vertices, simplices of facets without these vertices that may be near them, and the tolerance of both."""
        used, tolerances = self.corners
        for vertex, simplex in self.tree.meeting(*self._boxes(used[:, None], tolerances)):
            facet = self.facet[simplex]
            foreign = _disjoint(self.facets[facet], used[vertex][:, None])
            tolerance = np.minimum(tolerances[vertex], self.tolerances[facet])
            yield used[vertex[foreign]], simplex[foreign], tolerance[foreign]

    def near_edges(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pairs of edges (k, 2) without a common vertex that may be near, and the tolerance of both."""
        edges, tolerances = self.edges
        boxes = self._boxes(edges, tolerances)
        for one, other in BoxTree(*boxes).meeting(*boxes):
            one, other = one[one < other], other[one < other]
            apart = _disjoint(edges[one], edges[other])
            one, other = one[apart], other[apart]
            yield edges[one], edges[other], np.minimum(tolerances[one], tolerances[other])

    def near_simplices(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Edges (k, 2), and simplices without a common vertex that the edges may pass through."""
        edges, tolerances = self.edges
        for edge, simplex in self.tree.meeting(*self._boxes(edges, tolerances)):
            apart = _disjoint(edges[edge], self.vertices[simplex])
            yield edges[edge[apart]], simplex[apart]


def same_place(points: np.ndarray, thickness: np.ndarray, precision: float, step: float = 0.0) -> np.ndarray:
    """The distance below which two places are the same, at some cells of a mesh.

    Args:
        points: (n, dim) the vertices of the mesh.
        thickness: (cells,) the thickness of the cells.
        precision: relative rounding of the coordinates.
        step: distance between neighbouring coordinates that the file can hold, zero where this is not known.
    """
    rounding = 4.0 * np.finfo(float).eps * np.abs(points).max()
    same = max(_SAME, 8.0 * precision) * np.ptp(points, axis=0).max()
    written = np.minimum(_STEPS * step, _THINNEST * thickness)
    return np.maximum(np.maximum(np.minimum(same, _THIN * thickness), written), rounding)


def _disjoint(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) whether rows (n, i) and (n, j) of vertices have no vertex in common."""
    found = np.ones(len(one), dtype=bool)
    for first in one.T:
        for second in other.T:
            found &= first != second
    return found


def _weighted(corners: np.ndarray) -> np.ndarray:
    """(n, dim) an inner point of facets or cells, given corners (vertices, n, dim)."""
    weights = _GENERIC[: len(corners)] / _GENERIC[: len(corners)].sum()
    return np.asarray(np.einsum("v,vnd->nd", weights, corners))


def normals_of(facets: np.ndarray) -> np.ndarray:
    """(..., dim) normals, of any length, of facets (..., vertices, dim) whose vertices are in order around them.

    They point outward if the vertices are anticlockwise as seen from outside, in the plane around the boundary.
    """
    vertices, dim = facets.shape[-2:]
    if dim == 1:
        return np.ones_like(facets[..., 0, :])
    if vertices == 2:
        along = facets[..., 1, :] - facets[..., 0, :]
        return np.stack([along[..., 1], -along[..., 0]], axis=-1)
    return np.cross(facets[..., 2, :] - facets[..., 0, :], facets[..., -1, :] - facets[..., 1, :])


def thickness_of(mesh: skfem.Mesh, corners: np.ndarray) -> np.ndarray:
    """(cells,) the thickness of cells, given corners (vertices, cells, dim).

    It is the least singular value of the map from the reference cell at its centre, or the length of the shortest edge
    if this is less, as in cells that become narrow towards a side.
    """
    middle = np.array(mesh.elem.refdom.p).mean(axis=1)[:, None]
    gradients = np.stack([mesh.elem().lbasis(middle, i)[1][:, 0] for i in range(len(corners))])
    maps = np.einsum("vcd,vk->cdk", corners - corners[:1], gradients)
    found = np.asarray(np.linalg.svd(maps, compute_uv=False)[:, -1])
    for first, second in mesh.elem.refdom.edges if mesh.dim() == 3 else mesh.elem.refdom.facets:
        found = np.minimum(found, np.linalg.norm(corners[first] - corners[second], axis=1))
    return found


def split_vertices(outline: Outline) -> np.ndarray:
    """(k, 2) pairs of vertices of the boundary that stand at the same place."""
    # Loaded here, because it takes long and most solves do without it.
    from scipy.spatial import KDTree

    used, tolerances = outline.corners
    # Four neighbours are enough: more vertices hardly ever lie within the tolerance of one vertex.
    count = min(4, len(used))
    distances, near = KDTree(outline.points[used]).query(
        outline.points[used], k=count, distance_upper_bound=2.0 * tolerances.max()
    )
    one, slot = np.nonzero(np.isfinite(distances))
    other = near[one, slot]
    same = (distances[one, slot] <= np.minimum(tolerances[one], tolerances[other])) & (one < other)
    return np.stack([used[one[same]], used[other[same]]], axis=1)


def first_pair(parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray] | None:
    """The first pair of several arrays of pairs; None where all are empty."""
    return next(((one[0], other[0]) for one, other in parts if len(one)), None)


def vertices_in_facets(outline: Outline) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vertices, and for each a facet that it lies on without being one of its vertices."""
    for vertices, simplices, tolerance in outline.near_corners():
        corners = outline.points[outline.vertices[simplices]]
        touching = _distance(outline.points[vertices], corners) <= tolerance
        yield vertices[touching], outline.facet[simplices[touching]]


def crossing_edges(outline: Outline) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of edges (k, 2) of facets in space that meet in a point that is not a vertex."""
    for first, second, tolerance in outline.near_edges() if outline.dim == 3 else ():
        (a, b), (c, d) = outline.points[first].swapaxes(0, 1), outline.points[second].swapaxes(0, 1)
        u, v, w = b - a, d - c, c - a
        normal = np.cross(u, v)
        square = (normal**2).sum(axis=1)
        parallel = square <= 1e-16 * (u**2).sum(axis=1) * (v**2).sum(axis=1)
        safe = np.where(parallel, 1.0, square)
        s = (np.cross(w, v) * normal).sum(axis=1) / safe
        t = (np.cross(w, u) * normal).sum(axis=1) / safe
        gap = np.abs((w * normal).sum(axis=1)) / np.sqrt(safe)
        crossing = ~parallel & (s > 0.0) & (s < 1.0) & (t > 0.0) & (t < 1.0) & (gap <= tolerance)
        yield first[crossing], second[crossing]


def touched_facets(outline: Outline) -> np.ndarray:
    """(facets,) whether a vertex or an edge of other facets lies on a facet."""
    found = np.zeros(len(outline.facets), dtype=bool)
    for _, facets in vertices_in_facets(outline):
        found[facets] = True
    on_edges = np.zeros(len(outline.points), dtype=bool)
    for pair in crossing_edges(outline):
        on_edges[np.concatenate(pair)] = True
    return found | (on_edges[outline.facets].sum(axis=1) > 1)


def _distance(points: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """(n,) the distances of points (n, dim) from simplices (n, dim, dim), which are segments or triangles."""
    a, b = simplices[:, 0], simplices[:, 1]
    if simplices.shape[1] == 2:
        return _distance_to_segment(points, a, b)
    c = simplices[:, 2]
    sides = ((a, b), (b, c), (c, a))
    normal = normals_of(simplices)
    square = (normal**2).sum(axis=1)
    over = np.ones(len(points), dtype=bool)
    for start, end in sides:
        over &= (np.cross(end - start, points - start) * normal).sum(axis=1) >= 0.0
    height = np.abs(((points - a) * normal).sum(axis=1)) / np.sqrt(np.where(square > 0.0, square, 1.0))
    edges = [_distance_to_segment(points, *ends) for ends in sides]
    return np.where(over & (square > 0.0), height, np.minimum.reduce(edges))


def _distance_to_segment(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    along = b - a
    square = (along**2).sum(axis=1)
    share = ((points - a) * along).sum(axis=1) / np.where(square > 0.0, square, 1.0)
    return np.linalg.norm(points - a - np.clip(share, 0.0, 1.0)[:, None] * along, axis=1)


def overlap(outline: Outline) -> int | None:
    """A facet that crosses another one, or whose cell has an inner point at which more than one cell lies."""
    for edges, simplices in outline.near_simplices():
        crossing = _crossing(outline, edges, simplices)
        if crossing.any():
            return int(outline.facet[simplices[np.argmax(crossing)]])
    return _covered(outline)


def _crossing(outline: Outline, edges: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """(k,) whether edges (k, 2) pass through simplices by more than the depth of the facets."""
    corners, ends = outline.points[outline.vertices[simplices]], outline.points[edges]
    depth = outline.depths[outline.facet[simplices]]
    if outline.dim == 2:
        sides = [_heights(corners, ends), _heights(ends, corners)]
        through = [(np.abs(side) > depth).all(axis=0) & (side[0] * side[1] < 0.0) for side in sides]
        return through[0] & through[1]
    normal = _unit(normals_of(corners))
    before, after = ((ends - corners[:, :1]) * normal[:, None]).sum(axis=2).T
    through = (before * after < 0.0) & (np.minimum(np.abs(before), np.abs(after)) > depth)
    rows = np.flatnonzero(through)
    share = before[rows] / (before[rows] - after[rows])
    at = ends[rows, 0] + share[:, None] * (ends[rows, 1] - ends[rows, 0])
    for i in range(3):
        start, end = corners[rows, i], corners[rows, (i + 1) % 3]
        span = np.linalg.norm(end - start, axis=1)
        inward = (np.cross(end - start, at - start) * normal[rows]).sum(axis=1) / np.where(span > 0.0, span, 1.0)
        through[rows] &= inward > depth[rows]
    return through


def _heights(segments: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(2, n) signed distances of two points each, (n, 2, 2), from the lines through segments (n, 2, 2)."""
    return ((points - segments[:, :1]) * _unit(normals_of(segments))[:, None]).sum(axis=2).T


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, dim) divided by their lengths; zero where they are zero."""
    length = np.linalg.norm(vectors, axis=1)
    return vectors / np.where(length > 0.0, length, 1.0)[:, None]


def _covered(outline: Outline) -> int | None:
    """A facet whose cell has an inner point at which more than one cell lies."""
    hits = 0
    # A stride without a common factor with the number of facets visits all facets, one after the other far apart.
    count = len(outline.inside)
    stride = next(k for k in range(int(0.618 * count) + 1, 2 * count + 2) if np.gcd(k, count) == 1)
    order = np.arange(count) * stride % count
    for first in range(0, count, 2000):
        some = order[first : first + 2000]
        layers, met = _layers(outline, outline.inside[some], 0)
        several = some[layers > 1.5]
        # A ray may graze an edge, so a second ray in another direction must confirm the result.
        several = several[_layers(outline, outline.inside[several], 1)[0] > 1.5]
        if len(several):
            return int(several[0])
        hits += met
        if hits > _MOST_HITS:
            break
    return None


def _layers(outline: Outline, start: np.ndarray, axis: int) -> tuple[np.ndarray, int]:
    """The number of cells that lie at each of the points (n, dim), and the number of boxes that were examined.

    The number of cells is how often a ray along an axis leaves the mesh, minus how often it enters.
    """
    end, layers, hits = start.copy(), np.zeros(len(start)), 0
    end[:, axis] = np.inf
    for ray, simplex in outline.tree.meeting(start, end):
        corners = outline.points[outline.vertices[simplex]] - start[ray][:, None]
        # The axis of the ray becomes the first one; in the plane this exchange turns outward normals inward.
        turn = -1.0 if outline.dim == 2 and axis else 1.0
        layers += np.bincount(ray, turn * _passing(np.roll(corners, -axis, axis=2)), minlength=len(start))
        hits += len(ray)
    return layers, hits


def _passing(corners: np.ndarray) -> np.ndarray:
    """1 where a ray from the origin along the first axis leaves through a simplex, -1 where it enters, 0 if it misses.

    Args:
        corners: (n, dim, dim) vertices of simplices, in order around them as seen from outside.
    """
    if corners.shape[1] == 2:
        a, b = corners[:, 0], corners[:, 1]
        # The intervals are half open, so that a vertex counts for one of its two segments.
        meets = (a[:, 1] <= 0.0) != (b[:, 1] <= 0.0)
        rise = b[:, 1] - a[:, 1]
        ahead = (a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]) * np.sign(rise) > 0.0
        return np.where(meets & ahead, np.sign(rise), 0.0)
    y, z = corners[:, :, 1].T, corners[:, :, 2].T
    turns = y * np.roll(z, -1, axis=0) - z * np.roll(y, -1, axis=0)
    meets = (turns * np.sign(turns.sum(axis=0)) > 0.0).all(axis=0)
    normal = normals_of(corners)
    # The ray meets the plane of the triangle at x = (corner . normal) / normal_x.
    ahead = (corners[:, 0] * normal).sum(axis=1) * np.sign(normal[:, 0]) > 0.0
    return np.where(meets & ahead, np.sign(normal[:, 0]), 0.0)
