"""Meshes whose facets, with their tags, are in a file of their own, as XDMF files of FEniCS are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import MeshFileError, place_text

if TYPE_CHECKING:
    import meshio

# Two points are the same if their distance is less than this share of the extent of the mesh.
_SAME = 1e-6


def joined(mesh: meshio.Mesh, facets: meshio.Mesh) -> meshio.Mesh:
    """A mesh with the cells of another one, which are facets of it, and their tags.

    The k-th integer array of the facets continues the k-th one of the mesh.

    Raises:
        MeshFileError: a vertex of a facet is no vertex of the mesh.
    """
    import meshio

    kept = [k for k, block in enumerate(facets.cells) if len(block.data)]
    number = _same_points(np.asarray(mesh.points, float), np.asarray(facets.points, float), facets, kept)
    sides = [(facets.cells[k].type, number[facets.cells[k].data]) for k in kept]
    blocks = [(block.type, block.data) for block in mesh.cells]
    result = meshio.Mesh(mesh.points, blocks + sides, field_data={**facets.field_data, **mesh.field_data})
    result.point_sets = dict(mesh.point_sets)
    theirs = {key: [facets.cell_data[key][k] for k in kept] for key in _tags(facets)}
    names = dict(zip(theirs, _tags(mesh), strict=False))
    renamed = {names.get(key, key): arrays for key, arrays in theirs.items()}
    result.cell_data = _side_by_side(mesh.cell_data, renamed, len(blocks), len(sides))
    sets = {name: [members[k] for k in kept] for name, members in facets.cell_sets.items()}
    result.cell_sets = _side_by_side(mesh.cell_sets, sets, len(blocks), len(sides))
    return result


def _side_by_side(
    mine: dict[str, list[Any]], theirs: dict[str, list[Any]], before: int, after: int
) -> dict[str, list[Any]]:
    """Arrays of the blocks of two meshes by name, empty where one of them does not have the name."""
    none = np.zeros(0, dtype=int)
    return {
        name: [*mine.get(name, [none] * before), *theirs.get(name, [none] * after)]
        for name in dict.fromkeys([*mine, *theirs])
    }


def _tags(mesh: meshio.Mesh) -> list[str]:
    """The names of the integer arrays of the cells."""
    return [
        name
        for name, arrays in mesh.cell_data.items()
        if all(np.issubdtype(np.asarray(each).dtype, np.integer) for each in arrays)
    ]


def _same_points(points: np.ndarray, others: np.ndarray, facets: meshio.Mesh, kept: list[int]) -> np.ndarray:
    """The number in the mesh of each point of the facets; -1 where none is needed."""
    from scipy.spatial import KDTree

    used = np.unique(np.concatenate([np.zeros(0, int), *(facets.cells[k].data.reshape(-1) for k in kept)]))
    if len(used) and (used[0] < 0 or used[-1] >= len(others)):
        raise MeshFileError("has facets with vertices that the file does not contain")
    width = max(points.shape[1], others.shape[1])
    mine, theirs = (np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in (points, others[used]))
    number = np.full(len(others), -1)
    distances, number[used] = KDTree(mine).query(theirs)
    apart = distances > _SAME * np.ptp(mine, axis=0).max()
    if apart.any():
        where = place_text(theirs[np.argmax(apart)])
        raise MeshFileError(f"has a facet with a vertex at {where}, which the mesh does not have")
    return number
