"""Meshes of scikit-fem and meshio in memory, with the checks of mesh files."""

from __future__ import annotations

from typing import Any

import meshio
import numpy as np
import skfem

from .cells import CELLS, MeshFileError, kind_of
from .mesh_file import FoundMesh, Reading, to_skfem
from .second_order import SECOND_ORDER, corners_of_nodes

# The elements of scikit-fem's meshes of continuous cells, of first and second order.
_FIRST = (
    skfem.ElementLineP1,
    skfem.ElementTriP1,
    skfem.ElementQuad1,
    skfem.ElementTetP1,
    skfem.ElementHex1,
)
_SECOND = {
    skfem.ElementTriP2: "triangle6",
    skfem.ElementQuad2: "quad9",
    skfem.ElementTetP2: "tetra10",
    skfem.ElementHex2: "hexahedron27",
}


def of_object(given: Any, reading: Reading) -> FoundMesh:
    """The mesh in an object of scikit-fem or meshio.

    Raises:
        MeshFileError: it does not hold sound cells of one kind that fit together.
    """
    return to_skfem(given if isinstance(given, meshio.Mesh) else as_meshio(given), reading)


def as_meshio(mesh: skfem.Mesh) -> meshio.Mesh:
    """A mesh of scikit-fem with its names as sets of cells and facets."""
    if mesh.elem not in _FIRST and mesh.elem not in _SECOND:
        raise MeshFileError(
            f"is a {type(mesh).__name__} of scikit-fem; expected intervals, triangles, quadrilaterals, tetrahedra or "
            "hexahedra of first or second order, with vertices that cells share"
        )
    kind = kind_of(mesh)
    cells = np.asarray(mesh.t)[list(CELLS[kind].order)].T
    if mesh.elem in _SECOND:
        cells = _second_order(mesh, kind)
    blocks: list[tuple[str, np.ndarray]] = [(_SECOND.get(mesh.elem, kind), cells)]
    named = {name: np.asarray(facets, dtype=int) for name, facets in (mesh.boundaries or {}).items()}
    blocks += [(CELLS[kind].facet, np.asarray(mesh.facets)[:, facets].T) for facets in named.values()]
    none = np.zeros(0, dtype=int)
    sets = {
        str(name): [np.asarray(members, dtype=int), *[none] * len(named)]
        for name, members in (mesh.subdomains or {}).items()
    }
    for k, (name, facets) in enumerate(named.items()):
        parts = sets.setdefault(str(name), [none] * len(blocks))
        parts[1 + k] = np.arange(len(facets))
    result = meshio.Mesh(np.asarray(mesh.doflocs).T, blocks)
    result.cell_sets = sets
    return result


def _second_order(mesh: skfem.Mesh, kind: str) -> np.ndarray:
    """(cells, nodes) the nodes of cells of second order, in meshio's order."""
    own, order = [frozenset(each) for each in corners_of_nodes(mesh)], CELLS[kind].order
    places = [(k,) for k in range(len(order))] + list(SECOND_ORDER[_SECOND[mesh.elem]][1])
    rows = [own.index(frozenset(order[corner] for corner in corners)) for corners in places]
    return np.asarray(mesh.dofs.element_dofs)[rows].T
