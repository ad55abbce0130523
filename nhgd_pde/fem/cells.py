"""The kinds of cells that meshes are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import skfem


@dataclass(frozen=True)
class Cell:
    """A kind of cell.

    Attributes:
        plural: the plural of the name of the cells.
        mesh: scikit-fem's class of meshes of these cells.
        dim: dimension of the cells.
        facet: meshio's name of the facets.
        order: scikit-fem's number of each vertex, in the order of VTK and meshio.
    """

    plural: str
    mesh: type[skfem.Mesh]
    dim: int
    facet: str
    order: tuple[int, ...]


# The kinds of cells by their names in meshio.
CELLS = {
    "tetra": Cell("tetrahedra", skfem.MeshTet1, 3, "triangle", (0, 1, 2, 3)),
    "hexahedron": Cell("hexahedra", skfem.MeshHex1, 3, "quad", (0, 3, 6, 2, 1, 5, 7, 4)),
    "triangle": Cell("triangles", skfem.MeshTri1, 2, "line", (0, 1, 2)),
    "quad": Cell("quadrilaterals", skfem.MeshQuad1, 2, "line", (0, 1, 2, 3)),
    "line": Cell("intervals", skfem.MeshLine1, 1, "vertex", (0, 1)),
}


class MeshFileError(ValueError):
    """A mesh file that cannot be read or used."""


def kind_of(mesh: skfem.Mesh) -> str:
    """The kind of the cells of a mesh, a key of `CELLS`."""
    return next(name for name, cell in CELLS.items() if cell.mesh.elem.refdom is mesh.elem.refdom)


def place_text(point: np.ndarray) -> str:
    """The coordinates of a point, for people."""
    return "(" + ", ".join(f"{x:.6g}" for x in point) + ")"
