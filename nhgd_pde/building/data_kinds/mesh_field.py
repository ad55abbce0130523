"""Fields on meshes, such as those of final.vtu."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...fem.cells import MeshFileError
from ...fem.interpolation import locate
from ...fem.mesh_file import read_meshio
from .base import DataFieldError, FieldFunction, chosen_name

# The simplices of each kind of cells, by the numbers of their nodes in VTK's order. Between nodes a field is linear on
# these; of cells with 27 nodes the corners alone are used.
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
    "quad9": tuple(half for a, b, c, d in _QUADS for half in ((a, b, c), (a, c, d))),
    "tetra10": (
        *((0, 4, 6, 7), (4, 1, 5, 8), (6, 5, 2, 9), (7, 8, 9, 3)),
        *((4, 8, 6, 7), (4, 5, 6, 8), (7, 8, 6, 9), (5, 9, 6, 8)),
    ),
    "hexahedron27": _HEXAHEDRON,
}
_DIMENSION = {2: 1, 3: 2, 4: 3}


def field_of_mesh(path: Path, field: str | None, dim: int) -> FieldFunction:
    """A field at the nodes of a mesh, or in its cells, as a function; outside it has the value of the nearest cell."""
    try:
        mesh = read_meshio(path)
    except MeshFileError as error:
        raise DataFieldError("file", str(error)) from None
    blocks = [block for block in mesh.cells if _dimension(block.type) == dim]
    if not blocks:
        kinds = ", ".join(sorted({block.type for block in mesh.cells})) or "none"
        raise DataFieldError("file", f"expected cells in {dim} dimensions, found {kinds}")
    at_nodes = {name: np.asarray(each) for name, each in mesh.point_data.items()}
    in_cells = {
        name: np.concatenate([own for own, block in zip(each, mesh.cells, strict=True) if block in blocks])
        for name, each in mesh.cell_data.items()
    }
    split = [block.data[:, list(_SIMPLICES[block.type])].reshape(-1, dim + 1) for block in blocks]
    simplices = np.concatenate(split).T
    shares = np.concatenate([np.full(len(block.data), len(_SIMPLICES[block.type])) for block in blocks])
    owners = np.repeat(np.arange(len(shares)), shares)
    vertices = np.asarray(mesh.points, dtype=np.float64)[:, :dim].T
    known = _scalars(at_nodes, dim) | _scalars(in_cells, dim)
    name = chosen_name(list(known), field, "field")
    values = known[name]
    if not np.isfinite(values).all():
        raise DataFieldError("field", f"expected finite values, found some of {name!r} that are not")
    nodal = name in _scalars(at_nodes, dim)

    def evaluate(x: np.ndarray) -> np.ndarray:
        cells, local, _ = locate(vertices, simplices, x)
        if not nodal:
            return np.asarray(values[owners[cells]])
        # A point outside has values from the nearest edge, without extrapolation.
        weights = np.maximum(np.concatenate([1.0 - local.sum(axis=0, keepdims=True), local]), 0.0)
        return np.asarray((weights * values[simplices[:, cells]]).sum(axis=0) / weights.sum(axis=0))

    return evaluate


def _dimension(kind: str) -> int:
    """The dimension of cells of a kind; 0 of kinds that are not known."""
    return _DIMENSION[len(_SIMPLICES[kind][0])] if kind in _SIMPLICES else 0


def _scalars(fields: dict[str, np.ndarray], dim: int) -> dict[str, np.ndarray]:
    """The scalar fields, and the components of vectors as NAME_x, NAME_y, NAME_z."""
    found: dict[str, np.ndarray] = {}
    for name, values in fields.items():
        if values.ndim == 1:
            found[name] = values
        elif values.ndim == 2 and values.shape[1] <= 3:
            found |= {f"{name}_{axis}": values[:, k] for k, axis in enumerate("xyz"[: min(dim, values.shape[1])])}
    return found
