"""The surface of the part of a grid in which a field is at least a threshold: closed, for 3-D printers and CAD.

The field is linear between the nodes of simplices, and tetrahedra and triangles are cut exactly (marching tetrahedra:
Doi and Koide, IEICE Trans. E74 (1991) 214-224). Where the part reaches the boundary of the grid, the surface follows
it.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from .fields import Grid

# The corners of a cell, which come first among its nodes.
_CORNERS = {"triangle": 3, "triangle6": 3, "quad": 4, "quad9": 4, "tetra": 4, "tetra10": 4}
_CORNERS |= {"hexahedron": 8, "hexahedron27": 8}
# The faces of a hexahedron in VTK's order of its corners, and those of a tetrahedron with a positive volume, both with
# normals that point outwards.
_SIDES = np.array([[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]])
_FACES = np.array([[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]])
# Cuts keep this share of an edge away from its ends: where a node has the value of the threshold, triangles would
# vanish, and a file without numbers of points could not tell which of them are neighbours.
_APART = 1e-3


def nodal_values(grid: Grid, values: np.ndarray) -> np.ndarray:
    """Values in cells (M,) -> values at points (N,): means over the cells around each, weighted by their volumes."""
    corners = _corners(grid)
    points, _, simplices, owners = _simplices(grid, np.zeros(len(grid.points)))
    volumes = np.bincount(owners, np.abs(_volumes(points, simplices)), len(grid.cells))
    weights = np.repeat(volumes, corners.shape[1])
    total = np.bincount(corners.reshape(-1), weights, len(grid.points))
    sums = np.bincount(corners.reshape(-1), weights * np.repeat(values, corners.shape[1]), len(grid.points))
    return np.divide(sums, total, out=np.zeros(len(grid.points)), where=total > 0.0)


def solid(grid: Grid, values: np.ndarray, threshold: float, thickness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The surface of the points where a field is at least a threshold.

    Args:
        grid: of triangles, quadrilaterals, tetrahedra or hexahedra.
        values: (N,) at the points; those of corners are used.
        threshold: the least value of the part that is kept.
        thickness: of a plane part, which is extruded.

    Returns:
        Points (K, 3), and triangles (T, 3) with normals that point outwards; both empty where no value reaches the
        threshold. Every edge belongs to two triangles, which pass it in opposite directions.

    Raises:
        ValueError: cells of another kind.
    """
    points, nodal, simplices, _ = _simplices(grid, values)
    inside = nodal >= threshold
    backwards = _volumes(points, simplices) < 0.0
    simplices[backwards, :2] = simplices[backwards, 1::-1]
    simplices = simplices[inside[simplices].any(axis=1)]
    if not len(simplices):
        return np.zeros((0, 3)), np.zeros((0, 3), dtype=int)
    if simplices.shape[1] == 4:
        faces = np.concatenate([_level_set(simplices, inside), _clipped(_boundary(simplices), inside)])
    else:
        faces = _clipped(simplices, inside)
    triangles, ends = _numbered(faces, len(points))
    x = _cuts(points, nodal, ends, threshold)
    return (x, triangles) if simplices.shape[1] == 4 else _extruded(x, triangles, thickness)


def volume(points: np.ndarray, triangles: np.ndarray) -> float:
    """The volume inside a closed surface, by the divergence theorem."""
    x = points - points.mean(axis=0)
    a, b, c = (x[triangles[:, k]] for k in range(3))
    return float(np.einsum("ti,ti->", a, np.cross(b, c)) / 6.0)


def _corners(grid: Grid) -> np.ndarray:
    if grid.cell_type not in _CORNERS:
        raise ValueError(f"expected a grid in two or three dimensions, found cells of the type {grid.cell_type}")
    return grid.cells[:, : _CORNERS[grid.cell_type]]


def _simplices(grid: Grid, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, 3), values (N,), simplices (S, 3 or 4) of the grid, and the cell (S,) of each.

    A quadrilateral is cut in two. A hexahedron is cut into twelve tetrahedra that meet in its middle, where the value
    is the mean of the corners; its sides are cut from the corner with the lowest number, so that neighbours agree.
    """
    corners = _corners(grid)
    points = np.pad(grid.points, ((0, 0), (0, 3 - grid.points.shape[1])))
    cells = np.arange(len(corners))
    if corners.shape[1] == 8:
        sides = corners[:, _SIDES].reshape(-1, 4)
        turn = (np.argmin(sides, axis=1)[:, None] + np.arange(4)) % 4
        sides = np.take_along_axis(sides, turn, axis=1)
        middles = np.repeat(len(points) + cells, 12)[:, None]
        halves = np.stack([sides[:, [0, 1, 2]], sides[:, [0, 2, 3]]], axis=1).reshape(-1, 3)
        points = np.concatenate([points, points[corners].mean(axis=1)])
        values = np.concatenate([values, values[corners].mean(axis=1)])
        return points, values, np.concatenate([halves, middles], axis=1), np.repeat(cells, 12)
    if grid.cell_type.startswith("quad"):
        halves = np.stack([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]], axis=1).reshape(-1, 3)
        return points, values, halves, np.repeat(cells, 2)
    return points, values, corners.copy(), cells


def _volumes(points: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """(S,) the volumes of tetrahedra, or the areas of triangles in the plane, with signs."""
    edges = points[simplices[:, 1:]] - points[simplices[:, :1]]
    if simplices.shape[1] == 4:
        return np.asarray(np.linalg.det(edges) / 6.0)
    return np.asarray(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]) / 2.0


def _boundary(tetrahedra: np.ndarray) -> np.ndarray:
    """(B, 3) the faces that belong to one tetrahedron alone."""
    faces = tetrahedra[:, _FACES].reshape(-1, 3)
    ordered = np.sort(faces, axis=1)
    order = np.lexsort(ordered.T)
    ordered = ordered[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    once = ~(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
    return faces[order[once]]


# The vertices of a surface are pairs of nodes: one node twice, or the two ends of an edge that is cut.


def _level_set(tetrahedra: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(T, 3, 2) triangles in tetrahedra, between the nodes inside and those outside; normals point outside."""
    within = inside[tetrahedra]
    patterns = within @ np.array([1, 2, 4, 8])
    found = [np.zeros((0, 3, 2), dtype=tetrahedra.dtype)]
    for pattern in range(1, 15):
        chosen = tetrahedra[patterns == pattern]
        order = next(each for each in _EVEN if _sorted(pattern, each))
        a, b, c, d = chosen[:, order].T
        count = pattern.bit_count()
        if count == 1:
            parts = [((a, b), (a, c), (a, d))]
        elif count == 2:
            parts = [((a, c), (a, d), (b, d)), ((a, c), (b, d), (b, c))]
        else:
            parts = [((a, d), (b, d), (c, d))]
        found += [np.stack([np.stack(pair, axis=1) for pair in part], axis=1) for part in parts]
    return np.concatenate(found)


def _sorted(pattern: int, order: tuple[int, ...]) -> bool:
    """Whether an order of the corners of a tetrahedron begins with those inside, which are the bits of the pattern."""
    bits = [pattern >> corner & 1 for corner in order]
    return bits == sorted(bits, reverse=True)


def _even(order: tuple[int, ...]) -> bool:
    return sum(order[i] > order[j] for i in range(4) for j in range(i + 1, 4)) % 2 == 0


# The orders of four corners that keep the sign of a volume.
_EVEN = [each for each in permutations(range(4)) if _even(each)]


def _clipped(triangles: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(T, 3, 2) the parts of triangles on the side of the nodes inside."""
    within = inside[triangles]
    whole = triangles[within.all(axis=1)]
    found = [np.repeat(whole[:, :, None], 2, axis=2)]
    for first in range(3):
        # A triangle is turned so that the corner that differs from the two others comes first.
        turned, own = np.roll(triangles, -first, axis=1), np.roll(within, -first, axis=1)
        a, b, c = turned[own[:, 0] & ~own[:, 1] & ~own[:, 2]].T
        found.append(_stacked(((a, a), (a, b), (a, c))))
        a, b, c = turned[~own[:, 0] & own[:, 1] & own[:, 2]].T
        found += [_stacked(((b, b), (c, c), (c, a))), _stacked(((b, b), (c, a), (b, a)))]
    return np.concatenate(found)


def _stacked(corners: tuple[tuple[np.ndarray, np.ndarray], ...]) -> np.ndarray:
    return np.stack([np.stack(pair, axis=1) for pair in corners], axis=1)


def _numbered(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (T, 3) of numbers of vertices, and the two nodes (K, 2) of each vertex, that inside first."""
    keys, numbers = np.unique(faces[..., 0].astype(np.int64) * count + faces[..., 1], return_inverse=True)
    return numbers.reshape(-1, 3), np.stack([keys // count, keys % count], axis=1)


def _cuts(points: np.ndarray, values: np.ndarray, ends: np.ndarray, threshold: float) -> np.ndarray:
    """(K, 3) the points where the field has the value of the threshold."""
    within, beyond = values[ends[:, 0]], values[ends[:, 1]]
    drop = within - beyond
    share = np.divide(within - threshold, drop, out=np.zeros(len(ends)), where=drop > 0.0)
    cut = ends[:, 0] != ends[:, 1]
    share[cut] = share[cut].clip(_APART, 1.0 - _APART)
    return np.asarray(points[ends[:, 0]] + share[:, None] * (points[ends[:, 1]] - points[ends[:, 0]]))


def _extruded(points: np.ndarray, triangles: np.ndarray, thickness: float) -> tuple[np.ndarray, np.ndarray]:
    """A plane surface, which is the bottom, as a body of this thickness."""
    count = len(points)
    edges = np.concatenate([triangles[:, [k, (k + 1) % 3]] for k in range(3)])
    keys = edges[:, 0] * count + edges[:, 1]
    rim = edges[~np.isin(keys, edges[:, 1] * count + edges[:, 0])]
    start, end = rim.T
    walls = [np.stack([start, end, end + count], axis=1), np.stack([start, end + count, start + count], axis=1)]
    top = points + np.array([0.0, 0.0, thickness])
    return np.concatenate([points, top]), np.concatenate([triangles[:, ::-1], triangles + count, *walls])
