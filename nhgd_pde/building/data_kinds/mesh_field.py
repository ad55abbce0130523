"""Fields on meshes, such as those of final.vtu."""

from __future__ import annotations

from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...fem.cells import MeshFileError
from ...fem.interpolation import locate
from ...fem.mesh_file import read_meshio
from ...fem.planes import NotFlatError, flattened
from .base import DataFieldError, FieldFunction, chosen_name

if TYPE_CHECKING:
    import meshio

# The simplices of each kind of cells, by the numbers of their nodes in VTK's order. Between nodes a field is linear on
# these; of cells with 20 or 27 nodes the corners alone are used.
_HEXAHEDRON = ((0, 1, 2, 6), (0, 2, 3, 6), (0, 3, 7, 6), (0, 7, 4, 6), (0, 4, 5, 6), (0, 5, 1, 6))
_QUADS = ((0, 4, 8, 7), (4, 1, 5, 8), (8, 5, 2, 6), (7, 8, 6, 3))
_SIMPLICES: dict[str, tuple[tuple[int, ...], ...]] = {
    "line": ((0, 1),),
    "triangle": ((0, 1, 2),),
    "tetra": ((0, 1, 2, 3),),
    "quad": ((0, 1, 2), (0, 2, 3)),
    "hexahedron": _HEXAHEDRON,
    "line3": ((0, 2), (2, 1)),
    "triangle6": ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
    "quad8": ((0, 4, 7), (4, 1, 5), (5, 2, 6), (6, 3, 7), (4, 5, 7), (5, 6, 7)),
    "quad9": tuple(half for a, b, c, d in _QUADS for half in ((a, b, c), (a, c, d))),
    "tetra10": (
        *((0, 4, 6, 7), (4, 1, 5, 8), (6, 5, 2, 9), (7, 8, 9, 3)),
        *((4, 8, 6, 7), (4, 5, 6, 8), (7, 8, 6, 9), (5, 9, 6, 8)),
    ),
    "hexahedron20": _HEXAHEDRON,
    "hexahedron27": _HEXAHEDRON,
}
_DIMENSION = {2: 1, 3: 2, 4: 3}

# A simplex is flat if the determinant of the directions of its edges is not larger.
_FLAT = 1e-12


def field_of_mesh(path: Path, field: str | None, dim: int, method: str) -> FieldFunction:
    """A field at the nodes of a mesh, or in its cells, as a function; outside it has the value of the nearest cell.

    A flat mesh in space has the coordinates of its plane, as in a mesh file. Of the method nearest a field at nodes has
    the value of the nearest node.
    """
    try:
        mesh = read_meshio(path)
    except MeshFileError as error:
        raise DataFieldError("file", str(error)) from None
    blocks = _blocks(mesh, dim)
    name, nodal, known = _chosen(mesh, blocks, field, dim)
    split = [block.data[:, list(_SIMPLICES[block.type])].reshape(-1, dim + 1) for block in blocks]
    shares = np.concatenate([np.full(len(block.data), len(_SIMPLICES[block.type])) for block in blocks])
    used, simplices = np.unique(np.concatenate(split).T, return_inverse=True)
    simplices = simplices.reshape(dim + 1, -1)
    vertices = _places(np.asarray(mesh.points, dtype=np.float64)[used], dim)
    values = known[used] if nodal else np.repeat(known, shares)
    if not np.isfinite(values).all():
        raise DataFieldError("field", f"expected finite values, found some of {name!r} that are not")
    if nodal and method == "nearest":
        from .scattered import field_of_points

        return field_of_points(vertices.T, values, method)
    solid = _solid(vertices, simplices)
    if not solid.any():
        raise DataFieldError("file", "expected cells with a volume, found none")
    return partial(_evaluated, vertices, simplices[:, solid], values if nodal else values[solid], nodal)


def _evaluated(
    vertices: np.ndarray, simplices: np.ndarray, values: np.ndarray, nodal: bool, x: np.ndarray
) -> np.ndarray:
    """The values (P,) of a field at vertices, or in simplices, at points (dim, P)."""
    cells, local, _ = locate(vertices, simplices, x)
    if not nodal:
        return np.asarray(values[cells])
    # A point outside has values from the nearest edge, without extrapolation.
    weights = np.maximum(np.concatenate([1.0 - local.sum(axis=0, keepdims=True), local]), 0.0)
    return np.asarray((weights * values[simplices[:, cells]]).sum(axis=0) / weights.sum(axis=0))


def _blocks(mesh: meshio.Mesh, dim: int) -> list[meshio.CellBlock]:
    """The blocks of cells of a mesh of a dimension."""
    blocks = [block for block in mesh.cells if _dimension(block.type) == dim]
    if not blocks or max(_dimension(block.type) for block in mesh.cells) > dim:
        found = ", ".join(sorted({block.type for block in mesh.cells})) or "none"
        kinds = ", ".join(kind for kind in _SIMPLICES if _dimension(kind) == dim)
        raise DataFieldError("file", f"expected a mesh in {dim}-D, with cells {kinds}; found {found}")
    return blocks


def _chosen(
    mesh: meshio.Mesh, blocks: list[meshio.CellBlock], field: str | None, dim: int
) -> tuple[str, bool, np.ndarray]:
    """The name of a field, whether it is one at nodes, and its values at all nodes, or in the cells of the blocks."""
    at_nodes = _scalars({name: np.asarray(each) for name, each in mesh.point_data.items()}, dim)
    chosen = [any(block is each for each in blocks) for block in mesh.cells]
    parts = {name: list(compress(each, chosen)) for name, each in mesh.cell_data.items()}
    in_cells = _scalars({name: np.concatenate(each) for name, each in parts.items()}, dim)
    name = chosen_name(list(in_cells | at_nodes), field, "field")
    if name in at_nodes and name in in_cells:
        raise DataFieldError("field", f"expected one field, found {name!r} both at nodes and in cells; rename one")
    return name, name in at_nodes, (at_nodes | in_cells)[name]


def _places(points: np.ndarray, dim: int) -> np.ndarray:
    """(dim, count) coordinates of points (count, d) of a mesh."""
    if not np.isfinite(points).all():
        raise DataFieldError("file", "expected finite coordinates, found some that are not")
    try:
        return flattened(points, dim).T
    except NotFlatError as error:
        shape = "a line" if dim == 1 else "a plane"
        raise DataFieldError("file", f"expected cells on {shape}, found others: {error}") from None


def _solid(vertices: np.ndarray, simplices: np.ndarray) -> np.ndarray:
    """(M,) whether simplices have a volume: no point is in those that have none."""
    corners = vertices[:, simplices]
    edges = (corners[:, 1:] - corners[:, :1]).transpose(2, 0, 1)
    lengths = np.linalg.norm(edges, axis=1)
    # Directions alone are compared, because a volume may be too small for a floating-point number.
    directions = edges / np.where(lengths > 0.0, lengths, 1.0)[:, None]
    return np.asarray((np.abs(np.linalg.det(directions)) > _FLAT) & (lengths > 0.0).all(axis=1))


def _dimension(kind: str) -> int:
    """The dimension of cells of a kind; 0 of kinds that are not known."""
    return _DIMENSION[len(_SIMPLICES[kind][0])] if kind in _SIMPLICES else 0


def _scalars(fields: dict[str, np.ndarray], dim: int) -> dict[str, np.ndarray]:
    """The scalar fields, and the components of vectors as NAME_x, NAME_y, NAME_z."""
    found: dict[str, np.ndarray] = {}
    for name, values in fields.items():
        if values.ndim == 1 or values.shape[1:] == (1,):
            found[name] = values.reshape(-1)
        elif values.ndim == 2 and values.shape[1] <= 3:
            found |= {f"{name}_{axis}": values[:, k] for k, axis in enumerate("xyz"[: min(dim, values.shape[1])])}
    return found
