"""Functions of a space as functions of the same kind on the mesh with every edge halved."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import skfem

from .cells import kind_of
from .interpolation import values_in_cells
from .spaces import Space


def parents(mesh: skfem.Mesh) -> np.ndarray:
    """(cells of the refined mesh,) the cell of a mesh in which each cell of `halved(mesh, ...)` lies.

    scikit-fem puts the first children of all cells before the second ones, except in one dimension and inside
    tetrahedra.
    """
    children = 2 ** int(mesh.dim())
    cells = np.arange(mesh.nelements)
    if kind_of(mesh) == "tetra":
        return np.concatenate([np.tile(cells, 4), np.tile(_by_diagonal(mesh), 4)])
    return np.repeat(cells, children) if kind_of(mesh) == "line" else np.tile(cells, children)


def _by_diagonal(mesh: skfem.Mesh) -> np.ndarray:
    """(cells,) the numbers of tetrahedra in the order of the four children that each has apart from its corners.

    They fill an octahedron, which scikit-fem cuts along the diagonal that looks shortest in the first two coordinates;
    the children of all cells that are cut along the first diagonal come first.
    """
    middles = mesh.p[:2, mesh.edges].mean(axis=1)[:, mesh.t2e]
    squares = [((middles[:, i] - middles[:, j]) ** 2).sum(axis=0) for i, j in ((0, 5), (1, 3), (2, 4))]
    # Of equal diagonals it takes the last one.
    return np.argsort(2 - np.argmin(squares, axis=0), kind="stable")


def prolongation(coarse: Space, fine: Space) -> sp.csr_matrix:
    """(fine.size, coarse.size): coefficients -> those of the same function on the refined mesh.

    Args:
        coarse: a space on a mesh of straight cells.
        fine: the space with the same element on the mesh that `halved` makes of it.
    """
    # Each node takes its values from the first coarse cell in which it lies.
    rows = np.asarray(fine.basis.element_dofs)
    first = np.full(fine.size, -1)
    first[rows.reshape(-1)[::-1]] = np.arange(rows.size)[::-1]
    nodes = np.flatnonzero(first >= 0)
    first = first[nodes]
    cells = parents(coarse.domain.mesh)[first % rows.shape[1]]
    points = fine.nodes[:, nodes] if fine.unglued is None else _places(fine, first)
    local = coarse.domain.mesh.mapping().invF(points[:, :, None], tind=cells)[:, :, 0]
    dofs = np.asarray(coarse.basis.element_dofs)[:, cells]
    entries = values_in_cells(coarse, local)
    where = np.broadcast_to(nodes, dofs.shape).reshape(-1), dofs.reshape(-1)
    return sp.csr_matrix((entries.reshape(-1), where), shape=(fine.size, coarse.size))


def _places(fine: Space, entries: np.ndarray) -> np.ndarray:
    """(dim, count) the nodes that belong to entries of the table of the cells, on their own side of a seam."""
    table = np.asarray(fine.on_mesh.basis.element_dofs).reshape(-1)
    return fine.on_mesh.nodes[:, table[entries]]
