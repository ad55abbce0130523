"""The facets of a mesh, with the numbers that scikit-fem gives them, in less time and memory."""

from __future__ import annotations

import numpy as np
import skfem

from .counting import first_of_equal, lexical_order


def with_facets(mesh: skfem.Mesh) -> skfem.Mesh:
    """The mesh itself, with the tables of its facets: vertices, facets of cells, and cells of facets.

    They are those that scikit-fem makes by sorting whole columns when one of them is first read. Facets are numbered by
    their sorted vertices; the first cell of a facet is the one that comes first, facet after facet of the cells.
    """
    if hasattr(mesh, "_f2t"):
        return mesh
    corners = np.array(mesh.elem.refdom.facets)
    if len(corners[0]) == 1:
        corners = corners.reshape(-1, 1)
    around = np.concatenate([mesh.t[each] for each in corners], axis=1)
    every = sorted_columns(around)
    order = lexical_order(every, mesh.nvertices)
    ordered = [column[order] for column in every]
    first = first_of_equal(ordered)
    starts = np.flatnonzero(first)
    number = np.empty(len(order), dtype=np.int32)
    number[order] = np.cumsum(first, dtype=np.int32) - 1
    # Sorting is stable, so that the first and the last of equal rows are the first and the last in the mesh.
    cells = mesh.nelements
    last = np.append(starts[1:], len(order)) - 1
    neighbours = (np.stack([order[starts], order[last]]) % cells).astype(np.int32)
    neighbours[1, neighbours[0] == neighbours[1]] = -1
    # The vertices of a quadrilateral stay in their order around it.
    mesh._facets = around[:, order[starts]] if len(every) == 4 else np.stack([column[starts] for column in ordered])
    mesh._t2f = number.reshape(len(corners), cells)
    mesh._f2t = neighbours
    return mesh


def sorted_columns(table: np.ndarray) -> np.ndarray:
    """A table (k, n) with each column sorted; for two rows in a fraction of the time of NumPy's sort."""
    if len(table) != 2:
        return np.sort(table, axis=0)
    return np.stack([np.minimum(*table), np.maximum(*table)])
