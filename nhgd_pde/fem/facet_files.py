"""Meshes whose facets, with their tags, are in a file of their own, as XDMF files of FEniCS are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .cells import MeshFileError, place_text

if TYPE_CHECKING:
    import meshio

# Two points are the same if their distance is less than this share of the extent of the mesh.
_SAME = 1e-8


def joined(mesh: meshio.Mesh, facets: meshio.Mesh) -> meshio.Mesh:
    """A mesh with the cells of another one, which are facets of it, and their tags.

    The k-th integer array of the facets continues the k-th one of the mesh.

    Raises:
        MeshFileError: a vertex of a facet is no vertex of the mesh.
    """
    import meshio

    kept = [k for k, block in enumerate(facets.cells) if len(block.data)]
    number = _same_points(np.asarray(mesh.points, float), np.asarray(facets.points, float), facets, kept)
    extra = [(facets.cells[k].type, number[facets.cells[k].data]) for k in kept]
    blocks = [(block.type, block.data) for block in mesh.cells]
    result = meshio.Mesh(mesh.points, blocks + extra, field_data={**facets.field_data, **mesh.field_data})
    result.point_sets = dict(mesh.point_sets)
    before, after = [np.zeros(0, dtype=int)] * len(blocks), [np.zeros(0, dtype=int)] * len(extra)
    data = {key: [*arrays, *after] for key, arrays in mesh.cell_data.items()}
    names = [key for key, arrays in mesh.cell_data.items() if all(_whole(each) for each in arrays)]
    tags = [key for key, arrays in facets.cell_data.items() if all(_whole(each) for each in arrays)]
    for k, key in enumerate(tags):
        own = [np.asarray(facets.cell_data[key][each]) for each in kept]
        name = names[k] if k < len(names) else key
        data[name] = [*data.get(name, before + after)[: len(blocks)], *own]
    result.cell_data = data
    sets = {name: [*members, *after] for name, members in mesh.cell_sets.items()}
    for name, members in facets.cell_sets.items():
        sets[name] = [*sets.get(name, before + after)[: len(blocks)], *(members[each] for each in kept)]
    result.cell_sets = sets
    return result


def _whole(values: object) -> bool:
    return np.issubdtype(np.asarray(values).dtype, np.integer)


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
