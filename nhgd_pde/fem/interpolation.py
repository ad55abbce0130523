"""Interpolation between spaces on one mesh."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from .cells import place_text
from .spaces import Space

# The kinds of cells whose map from the reference cell is affine.
SIMPLICES = frozenset({"line", "triangle", "tetra"})

# Number of cells that are tried for a point: at first, and where none of these contains it.
_CANDIDATES = (4, 64)
# Largest amount by which rounding makes a barycentric coordinate of a point in a cell negative.
_ON_THE_EDGE = 1e-9


def interpolation(source: Space, target: Space) -> sp.csr_matrix:
    """(target.size, source.size): coefficients in the source space -> values at the nodes of the target space.

    Where the cells around a node have different values, as for P0, the result is their mean.
    """
    reference = np.asarray(target.basis.elem.doflocs).T
    values = values_in_cells(source, reference)
    rows = np.asarray(target.basis.element_dofs)
    columns = np.asarray(source.basis.element_dofs)
    entries = np.broadcast_arrays(values.T[:, :, None], rows[:, None], columns[None])
    data, *where = (each.reshape(-1) for each in entries)
    total = sp.csr_matrix((data, tuple(where)), shape=(target.size, source.size))
    total.eliminate_zeros()
    meetings = np.bincount(rows.reshape(-1), minlength=target.size)
    return sp.csr_matrix(sp.diags_array(1.0 / meetings) @ total)


def values_in_cells(source: Space, local: np.ndarray) -> np.ndarray:
    """(functions, count) the functions of a space at points (dim, count) of reference cells."""
    functions = range(source.basis.Nbfun)
    return np.stack([np.broadcast_to(source.basis.elem.lbasis(local, i)[0], local.shape[1:]) for i in functions])


class OutsideMeshError(ValueError):
    """A point is in no cell; `index` is the number of the point."""

    def __init__(self, index: int, point: np.ndarray) -> None:
        super().__init__(f"the point {place_text(point)} is outside the mesh")
        self.index = index


def locate(
    vertices: np.ndarray, simplices: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cells of points in a mesh of simplices.

    scikit-fem's search is some 500 times slower.

    Args:
        vertices: (dim, N) coordinates.
        simplices: (dim + 1, M) the vertices of each cell.
        points: (dim, count).

    Returns:
        Cells (count,); coordinates (dim, count) in the reference cell; and whether the cell contains the point. Where
        it does not, none of the cells with the nearest midpoints does, and the cell is the nearest one of them: on
        meshes with very different cells this may happen to points inside.
    """
    # Loaded here, because it takes long and most solves do without it.
    from scipy.spatial import KDTree

    corners = vertices[:, simplices]
    edges = np.ascontiguousarray((corners[:, 1:] - corners[:, :1]).transpose(2, 0, 1))
    inverses = np.linalg.inv(edges)
    tree = KDTree(corners.mean(axis=1).T)
    cells = np.zeros(points.shape[1], dtype=int)
    local = np.zeros_like(points)
    inside = np.zeros(points.shape[1], dtype=bool)
    left = np.arange(points.shape[1])
    for tried in _CANDIDATES:
        _, near = tree.query(points[:, left].T, k=min(tried, simplices.shape[1]))
        near = near.reshape(len(left), -1)
        offsets = points[:, left].T[:, None] - corners[:, 0].T[near]
        coordinates = np.einsum("pkij,pkj->pki", inverses[near], offsets)
        # The least barycentric coordinate says how far inside a point is.
        depth = np.minimum(coordinates.min(axis=2), 1.0 - coordinates.sum(axis=2))
        best = depth.argmax(axis=1)
        rows = np.arange(len(left))
        found = depth[rows, best] >= -_ON_THE_EDGE
        cells[left], local[:, left] = near[rows, best], coordinates[rows, best].T
        inside[left] = found
        left = left[~found]
        if not len(left):
            break
    return cells, local, inside


def at_points(space: Space, points: np.ndarray, beyond: bool = False) -> sp.csr_matrix:
    """(count, size): coefficients -> values at points (dim, count).

    Args:
        beyond: points outside a mesh of straight simplices get the values of the polynomial of a cell near them, as do
            nodes of a finer mesh that lie on a curved boundary.

    Raises:
        OutsideMeshError: a point is in no cell; the error names the first such point.
    """
    if not points.shape[1]:
        return sp.csr_matrix((0, space.size))
    if space.domain.curved is not None:
        from .second_order import locate_curved

        return _probes(space, points, *locate_curved(space.domain.curved, points))
    if beyond and space.domain.cell in SIMPLICES:
        cells, local, _ = locate(space.domain.mesh.p, space.domain.mesh.t, points)
        return _probes(space, points, cells, local)
    low, high = space.domain.mesh.p.min(axis=1)[:, None], space.domain.mesh.p.max(axis=1)[:, None]
    margin = 1e-10 * (high - low)
    inside = ((points >= low - margin) & (points <= high + margin)).all(axis=0)
    points = np.clip(points, low, high) if inside.all() else points
    if space.domain.cell in SIMPLICES:
        mesh = space.domain.mesh
        cells, local, found = locate(mesh.p, mesh.t, points)
        if found.all():
            return _probes(space, points, cells, local)
    find = space.domain.mesh.element_finder(mapping=space.basis.mapping)
    try:
        if inside.all():
            find(*points)
    except ValueError:
        inside = np.array([_found(find, point) for point in points.T])
    if not inside.all():
        first = int(np.argmin(inside))
        raise OutsideMeshError(first, points[:, first])
    return sp.csr_matrix(space.basis.probes(points))


def _probes(space: Space, points: np.ndarray, cells: np.ndarray, local: np.ndarray) -> sp.csr_matrix:
    """The values at points with coordinates `local` (dim, count) in reference cells, which are in the cells `cells`."""
    if (cells < 0).any():
        first = int(np.argmax(cells < 0))
        raise OutsideMeshError(first, points[:, first])
    dofs = np.asarray(space.basis.element_dofs)[:, cells]
    rows = np.broadcast_to(np.arange(len(cells)), dofs.shape)
    entries = values_in_cells(space, local).reshape(-1), (rows.reshape(-1), dofs.reshape(-1))
    return sp.csr_matrix(entries, shape=(len(cells), space.size))


def _found(find: Callable[..., np.ndarray], point: np.ndarray) -> bool:
    try:
        find(*point[:, None])
    except ValueError:
        return False
    return True
