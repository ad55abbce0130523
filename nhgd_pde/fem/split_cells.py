"""Quadrilaterals of a mesh of meshio, split into triangles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .cells import MeshFileError

if TYPE_CHECKING:
    import meshio


def split(found: meshio.Mesh) -> meshio.Mesh:
    """The mesh with two triangles in place of every quadrilateral, which is cut along its shorter diagonal.

    Raises:
        MeshFileError: a quadrilateral has a vertex that the file does not contain.
    """
    import meshio

    data = {key: list(arrays) for key, arrays in found.cell_data.items()}
    sets = {name: list(blocks) for name, blocks in found.cell_sets.items()}
    blocks = []
    for k, block in enumerate(found.cells):
        if block.type != "quad":
            blocks.append((block.type, block.data))
            continue
        blocks.append(("triangle", _halves(np.asarray(found.points), np.asarray(block.data))))
        for arrays in data.values():
            arrays[k] = np.repeat(arrays[k], 2, axis=0)
        for members in sets.values():
            if members[k] is not None:
                own = np.asarray(members[k], dtype=np.int64)
                members[k] = np.stack([2 * own, 2 * own + 1], axis=-1).reshape(-1)
    result = meshio.Mesh(found.points, blocks, point_sets=dict(found.point_sets), field_data=dict(found.field_data))
    result.cell_data, result.cell_sets = data, sets
    tags = getattr(found, "cell_tags", None)
    if tags is not None:
        result.cell_tags = tags
    return result


def _halves(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(2 n, 3) the triangles of quadrilaterals (n, 4), two after each other."""
    if len(quads) and (quads.min() < 0 or quads.max() >= len(points)):
        raise MeshFileError("has cells with vertices that the file does not contain")
    a, b, c, d = quads.T
    first = np.linalg.norm(points[a] - points[c], axis=1) <= np.linalg.norm(points[b] - points[d], axis=1)
    one = np.where(first, [a, b, c], [a, b, d])
    other = np.where(first, [a, c, d], [b, c, d])
    return np.stack([one.T, other.T], axis=1).reshape(-1, 3)
