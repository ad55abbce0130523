"""Uniform refinement, which halves every edge of a mesh and keeps the names of its parts."""

from __future__ import annotations

import numpy as np
import skfem

from .cells import kind_of
from .facet_tables import with_facets


def with_facets_of(mesh: skfem.Mesh, copy: skfem.Mesh) -> skfem.Mesh:
    """A copy of a mesh with the facets that scikit-fem has already computed for the mesh."""
    for name in ("_facets", "_t2f", "_f2t"):
        if hasattr(mesh, name):
            setattr(copy, name, getattr(mesh, name))
    return copy


def halved(
    mesh: skfem.Mesh, boundaries: dict[str, np.ndarray], subdomains: dict[str, np.ndarray]
) -> tuple[skfem.Mesh, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The mesh with every edge halved, and its named boundaries and subdomains."""
    cell = kind_of(mesh)
    if cell in ("quad", "hexahedron"):
        fine = type(mesh)(mesh.p, mesh.t).with_subdomains(subdomains).refined()
        # scikit-fem numbers the midpoints of facets after the vertices and, in 3-D, after the midpoints of edges. So
        # the greatest vertex of a part of a facet is the midpoint of the whole facet.
        before = mesh.nvertices + (mesh.nedges if cell == "hexahedron" else 0)
        among = _candidates(mesh, fine, boundaries)
        whole = fine.facets[:, among].max(axis=0) - before
        pieces = {name: among[np.isin(whole, facets)] for name, facets in boundaries.items()}
        return fine, pieces, dict(fine.subdomains or {})
    if cell == "triangle":
        # Without names: to keep those of facets, scikit-fem numbers the facets of the fine mesh, which takes it long.
        fine = with_facets(with_facets_of(mesh, skfem.MeshTri(mesh.p, mesh.t)).refined())
        # The midpoint of facet k has the number k after the vertices. A half of the facet ends there and at a vertex,
        # and the vertices of a facet are sorted.
        ends = fine.facets
        whole = np.where(ends[0] < mesh.nvertices, ends[1] - mesh.nvertices, -1)
        halves = {name: np.flatnonzero(np.isin(whole, facets)) for name, facets in boundaries.items()}
        quarters = {
            name: np.sort(np.concatenate([cells + k * mesh.nelements for k in range(4)]))
            for name, cells in subdomains.items()
        }
        return fine, halves, quarters
    if cell == "line":
        # Cell c becomes the cells 2c and 2c + 1, but scikit-fem names other cells. Vertices keep their numbers.
        fine = skfem.MeshLine(mesh.p, mesh.t).refined()
        halves = {name: np.sort(np.concatenate([2 * c, 2 * c + 1])) for name, c in subdomains.items()}
        return fine, boundaries, halves
    fine = skfem.MeshTet(mesh.p, mesh.t).with_subdomains(subdomains).refined()
    among = _candidates(mesh, fine, boundaries)
    pieces = {name: _children(mesh, fine, facets, among) for name, facets in boundaries.items()}
    return fine, pieces, dict(fine.subdomains or {})


def _candidates(coarse: skfem.Mesh, fine: skfem.Mesh, parts: dict[str, np.ndarray]) -> np.ndarray:
    """The facets of a refined mesh that may belong to named parts: the boundary if all named parts lie there."""
    inside = any((coarse.f2t[1, facets] >= 0).any() for facets in parts.values())
    return np.arange(fine.nfacets) if inside else np.asarray(fine.boundary_facets())


def _children(coarse: skfem.Mesh, fine: skfem.Mesh, facets: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The facets among `among` of refined tetrahedra that are parts of the coarse facets `facets`."""
    a, b, c = np.sort(coarse.facets[:, facets], axis=0)
    # scikit-fem numbers the midpoints of the edges after the vertices.
    ab, bc, ac = (
        coarse.nvertices + _positions(np.sort(coarse.edges, axis=0), np.stack(edge))
        for edge in ((a, b), (b, c), (a, c))
    )
    triangles = ((a, ab, ac), (b, ab, bc), (c, bc, ac), (ab, bc, ac))
    found = [_positions(np.sort(fine.facets[:, among], axis=0), np.sort(each, axis=0)) for each in triangles]
    return np.sort(among[np.concatenate(found)])


def _positions(table: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The positions of some columns in a table (k, n) of different columns, which must contain them."""
    _, number = np.unique(np.hstack([table, columns]), axis=1, return_inverse=True)
    number = number.reshape(-1)
    position = np.empty(number.max() + 1, dtype=int)
    position[number[: table.shape[1]]] = np.arange(table.shape[1])
    return position[number[table.shape[1] :]]
