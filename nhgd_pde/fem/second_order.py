"""Cells of second order: their straight cells, and meshes whose edges and facets are curved through further nodes."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import skfem

from .cells import MeshFileError, kind_of, place_text
from .refinement import with_facets_of

if TYPE_CHECKING:
    import meshio

_QUAD = ((0, 1), (1, 2), (2, 3), (3, 0))
_HEXAHEDRON = (*_QUAD, (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_SIDES = ((0, 3, 7, 4), (1, 2, 6, 5), (0, 1, 5, 4), (3, 2, 6, 7), (0, 1, 2, 3), (4, 5, 6, 7))
# For each kind of cell of second order: the kind of its straight cell, and the corners between which each further node
# lies, in the order of VTK and meshio.
SECOND_ORDER: dict[str, tuple[str, tuple[tuple[int, ...], ...]]] = {
    "line3": ("line", ((0, 1),)),
    "triangle6": ("triangle", ((0, 1), (1, 2), (2, 0))),
    "quad8": ("quad", _QUAD),
    "quad9": ("quad", (*_QUAD, (0, 1, 2, 3))),
    "tetra10": ("tetra", ((0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3))),
    "hexahedron20": ("hexahedron", _HEXAHEDRON),
    "hexahedron27": ("hexahedron", (*_HEXAHEDRON, *_SIDES, tuple(range(8)))),
}
_MESHES = {
    "triangle": skfem.MeshTri2,
    "quad": skfem.MeshQuad2,
    "tetra": skfem.MeshTet2,
    "hexahedron": skfem.MeshHex2,
}
# Number of corners of the cells.
_CORNERS = {"line": 2, "triangle": 3, "quad": 4, "tetra": 4, "hexahedron": 8}
# Nodes are in the middle up to rounding if they are nearer to it than this share of the size of the cell.
_STRAIGHT = 1e-9


def straightened(found: meshio.Mesh) -> meshio.Mesh:
    """The mesh with the straight cell of every cell of second order; the same mesh where there is none."""
    import meshio

    if not any(block.type in SECOND_ORDER for block in found.cells):
        return found
    blocks = []
    for block in found.cells:
        kind = SECOND_ORDER.get(block.type, (block.type,))[0]
        blocks.append((kind, block.data[:, : _CORNERS[kind]] if block.type in SECOND_ORDER else block.data))
    result = meshio.Mesh(found.points, blocks, point_sets=dict(found.point_sets), field_data=dict(found.field_data))
    result.cell_data, result.cell_sets = dict(found.cell_data), dict(found.cell_sets)
    tags = getattr(found, "cell_tags", None)
    if tags is not None:
        result.cell_tags = tags
    return result


def further_nodes(found: meshio.Mesh, kind: str) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """For each place of further nodes in cells of a kind: its corners, and the node (cells,) there, -1 for none."""
    nodes: dict[tuple[int, ...], list[np.ndarray]] = {}
    count = 0
    for block in found.cells:
        straight, places = SECOND_ORDER.get(block.type, (block.type, ()))
        if straight != kind:
            continue
        for k, corners in enumerate(places):
            every = nodes.setdefault(corners, [np.full(count, -1)])
            every.append(block.data[:, _CORNERS[kind] + k].astype(np.int64))
        count += len(block.data)
        for every in nodes.values():
            missing = count - sum(map(len, every))
            every.append(np.full(missing, -1))
    return [(corners, np.concatenate(every)) for corners, every in nodes.items()]


def curved(
    mesh: skfem.Mesh, cells: np.ndarray, places: list[tuple[tuple[int, ...], np.ndarray, np.ndarray]]
) -> skfem.Mesh | None:
    """The mesh with cells that are curved through further nodes; None where all of these are in the middle.

    Args:
        mesh: the straight mesh.
        cells: (cells, corners) the vertices of its cells, in the order of the file.
        places: the corners of each further node, the cells that have it, and its points (dim, those cells).

    Raises:
        MeshFileError: a curved cell folds over itself.
    """
    kind = kind_of(mesh)
    if kind == "line":
        return None
    flat = _MESHES[kind].from_mesh(mesh)
    straight, dofs = np.asarray(flat.doflocs), np.asarray(flat.dofs.element_dofs)
    points, own = straight.copy(), corners_of_nodes(flat)
    for corners, those, at in (each for each in places if len(each[0]) == 2):
        _place(points, mesh, dofs, own, cells, corners, those, at)
    _complete(points, dofs, own)
    for corners, those, at in (each for each in places if len(each[0]) > 2):
        _place(points, mesh, dofs, own, cells, corners, those, at)
    lengths = np.ptp(mesh.p[:, mesh.t], axis=1).max(axis=0)
    away = np.abs(points - straight)[:, dofs].max(axis=(0, 1))
    if (away <= _STRAIGHT * lengths).all():
        return None
    result = with_facets_of(mesh, _MESHES[kind](points, mesh.t))
    _check_folds(result)
    return result


def corners_of_nodes(mesh: skfem.Mesh) -> list[tuple[int, ...]]:
    """For each function of the reference cell the corners between whose points its node lies."""
    corners, nodes = np.array(mesh.elem.refdom.p).T, np.asarray(mesh.elem().doflocs)
    found = []
    for node in nodes:
        sets = (some for size in (1, 2, 4, 8) for some in combinations(range(len(corners)), min(size, len(corners))))
        found.append(next(some for some in sets if np.allclose(corners[list(some)].mean(axis=0), node)))
    if len(corners) in (4, 8) and len(nodes) in (9, 27):
        # The middle of a quadrilateral is the middle of its diagonals, too.
        found = [
            tuple(i for i in range(len(corners)) if (np.isclose(node, 0.5) | np.isclose(corners[i], node)).all())
            for node in nodes
        ]
    return found


def _place(
    points: np.ndarray,
    mesh: skfem.Mesh,
    dofs: np.ndarray,
    own: list[tuple[int, ...]],
    cells: np.ndarray,
    corners: tuple[int, ...],
    those: np.ndarray,
    at: np.ndarray,
) -> None:
    """Put the nodes between some corners, as numbered in the file, to their points."""
    wanted = np.sort(cells[those][:, list(corners)], axis=1)
    for k, local in enumerate(own):
        if len(local) == len(corners):
            here = (wanted == np.sort(mesh.t[list(local)][:, those], axis=0).T).all(axis=1)
            points[:, dofs[k, those[here]]] = at[:, here]


def _complete(points: np.ndarray, dofs: np.ndarray, own: list[tuple[int, ...]]) -> None:
    """Put nodes inside facets and cells to where cells without these nodes (8 or 20) have these points."""
    for k, local in enumerate(own):
        if len(local) > 2:
            edges = [i for i, each in enumerate(own) if len(each) == 2 and set(each) <= set(local)]
            vertices = [own.index((i,)) for i in local]
            share = 0.5 if len(local) == 4 else 0.25
            middle = share * points[:, dofs[edges]].sum(axis=1) - 0.25 * points[:, dofs[vertices]].sum(axis=1)
            points[:, dofs[k]] = middle


def _check_folds(mesh: skfem.Mesh) -> None:
    """Refuse a mesh with a curved cell whose map from the reference cell is not one to one."""
    nodes = np.asarray(mesh.elem().doflocs).T
    determinants = np.asarray(mesh._mapping().detDF(nodes))
    signed = determinants * np.sign(determinants.sum(axis=1))[:, None]
    folded = signed.min(axis=1) <= 1e-6 * signed.max(axis=1)
    if folded.any():
        where = place_text(mesh.p[:, mesh.t[:, np.argmax(folded)]].mean(axis=1))
        raise MeshFileError(
            f"has curved cells that fold over themselves, the first at {where}: make it with finer cells there, or "
            "take `geometry: straight`"
        )


def locate_curved(mesh: skfem.Mesh, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells of points (dim, count) in a curved mesh, -1 outside, and their coordinates in reference cells."""
    from scipy.spatial import KDTree

    tree = KDTree(mesh.p[:, mesh.t].mean(axis=1).T)
    cells, local = np.full(points.shape[1], -1), np.zeros_like(points)
    for tried in (4, 64):
        left = np.flatnonzero(cells < 0)
        if not len(left):
            break
        count = min(tried, mesh.nelements)
        near = tree.query(points[:, left].T, k=count)[1].reshape(-1)
        at = np.repeat(points[:, left], count, axis=1)
        inside, found = _inverted(mesh, near, at)
        inside = inside.reshape(len(left), count)
        first = inside.argmax(axis=1)
        hit = inside.any(axis=1)
        chosen = (np.arange(len(left)) * count + first)[hit]
        cells[left[hit]], local[:, left[hit]] = near[chosen], found[:, chosen]
    return cells, local


def _inverted(mesh: skfem.Mesh, cells: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether points (dim, n) are in these cells (n,), and their coordinates there, by Newton's method."""
    mapping: Any = mesh._mapping()
    corners = np.array(mesh.elem.refdom.p)
    local = np.repeat(corners.mean(axis=1)[:, None], len(cells), axis=1)
    for _ in range(20):
        residual = points - mapping.F(local[:, :, None], tind=cells)[..., 0]
        jacobian = mapping.DF(local[:, :, None], tind=cells)[..., 0].transpose(2, 0, 1)
        singular = np.abs(np.linalg.det(jacobian)) < np.finfo(float).tiny
        jacobian[singular] = np.eye(len(points))
        step = np.linalg.solve(jacobian, residual.T[..., None])[..., 0].T
        # Points far away are outside, whatever the polynomials of the map do there.
        local = np.clip(local + step, -1.0, 2.0)
        if np.abs(step).max() < 1e-14:
            break
    lengths = np.ptp(mesh.p[:, mesh.t[:, cells]], axis=1).max(axis=0)
    near = np.abs(points - mapping.F(local[:, :, None], tind=cells)[..., 0]).max(axis=0) < 1e-8 * lengths
    within = (local >= -1e-9).all(axis=0)
    simplex = corners.shape[1] == len(corners) + 1
    within &= local.sum(axis=0) <= 1.0 + 1e-9 if simplex else (local <= 1.0 + 1e-9).all(axis=0)
    return near & within, local
