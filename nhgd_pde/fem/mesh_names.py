"""The names in a mesh file: physical groups, sets of cells and vertices, and integer tags of cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import skfem

from .cells import CELLS

if TYPE_CHECKING:
    import meshio

# Data with these names are not tags of parts but numbers of geometric entities or cells, or data of ParaView.
_NO_TAGS = frozenset({"gmsh:geometrical", "gmsh:element_id", "vtkGhostType", "GlobalElementId", "GlobalCellIds"})
# Data with more different values than this are taken to be numbers of cells and not tags of parts.
_MOST_TAGS = 1000


@dataclass
class Parts:
    """The named parts of a mesh, with the vertices of facets (k, vertices) and single vertices as numbered in the file.

    `cells` are indices among all cells of the mesh's kind, in the order of the file. `unusable` are the reasons why a
    name cannot be used.
    """

    cells: dict[str, np.ndarray] = field(default_factory=dict)
    facets: dict[str, np.ndarray] = field(default_factory=dict)
    vertices: dict[str, np.ndarray] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)


def parts_of(found: meshio.Mesh, kind: str) -> Parts:
    """The names that a file gives to cells of a kind, to their facets and to vertices."""
    parts, facet = Parts(), CELLS[kind].facet
    facets = [block.data for block in found.cells if block.type == facet]
    every = np.concatenate(facets) if facets else np.zeros((0, 1), dtype=int)
    for name, members in _sets(found):
        if members is None:
            parts.unusable[name] = "is a set of cells that cannot be understood"
            continue
        cells, sides = (_in_blocks(found, members, each) for each in (kind, facet))
        # Several tags may have the same name.
        if len(cells):
            parts.cells[name] = np.union1d(parts.cells.get(name, cells), cells)
        if len(sides):
            parts.facets[name] = np.concatenate([parts.facets.get(name, every[:0]), every[sides]])
        if not len(cells) and not len(sides):
            _add_lower(found, name, members, parts)
    for name, vertices in found.point_sets.items():
        chosen = np.asarray(vertices)
        parts.vertices[str(name)] = np.unique(np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(int))
    return parts


def _add_lower(found: meshio.Mesh, name: str, members: list[np.ndarray], parts: Parts) -> None:
    """Adds a name of members that are neither cells nor facets: vertices, or lines in a mesh of solids."""
    for block, some in zip(found.cells, members, strict=True):
        if len(some) and block.type == "vertex":
            parts.vertices[name] = np.unique(block.data[some])
        elif len(some):
            parts.unusable[name] = f"names {len(some):,} cells of type {block.type}, which are no facets"


def _in_blocks(found: meshio.Mesh, members: list[np.ndarray], kind: str) -> np.ndarray:
    """Indices among all cells of one kind of the members of a set, which are given for each block of cells."""
    parts, before = [np.arange(0)], 0
    for block, some in zip(found.cells, members, strict=True):
        if block.type == kind:
            parts.append(before + some)
            before += len(block.data)
    return np.unique(np.concatenate(parts))


def _sets(found: meshio.Mesh) -> Iterator[tuple[str, list[np.ndarray] | None]]:
    """Names, and for each the indices of its members in every block of cells; None where these are not valid.

    A name of a set hides the same name of a tag.
    """
    # gmsh 4.1 files have further sets, whose names begin with "gmsh:", that are not named parts.
    sets = {name: blocks for name, blocks in found.cell_sets.items() if not name.startswith("gmsh:")}
    for name, blocks in sets.items():
        yield name, _indices(blocks, found)
    for name, members in _tagged(found):
        if name not in sets:
            yield name, members


def _tagged(found: meshio.Mesh) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The names of the tags of cells, and for each the indices of its members in every block of cells."""
    tags = {
        key: values
        for key, values in found.cell_data.items()
        if key not in _NO_TAGS and not key.startswith("skfem:") and _are_tags(values)
    }
    # A colon in the name of the data, as in "medit:ref", means that meshio knows them as the tags of the format.
    plain = next((key for key in tags if ":" in key or key == "cell_tags"), next(iter(tags), None))
    for key, values in tags.items():
        for number, dim, members in _numbered(found, values):
            # gmsh writes zero for a cell that belongs to no group.
            if number or key != "gmsh:physical":
                for name in _names_of(found, key, number, dim) or [str(number) if key == plain else f"{key}:{number}"]:
                    yield name, members


def _numbered(found: meshio.Mesh, values: Any) -> Iterator[tuple[int, int, list[np.ndarray]]]:
    """The tags with the dimension of their cells, and the indices of these cells in every block of cells."""
    arrays = [np.asarray(each).reshape(-1) for each in values]
    # In gmsh, a line and a surface may have the same number.
    for dim in sorted({block.dim for block in found.cells}):
        own = [tags if block.dim == dim else tags[:0] for block, tags in zip(found.cells, arrays, strict=True)]
        for number in map(int, np.unique(np.concatenate(own))):
            yield number, dim, [np.flatnonzero(tags == number) for tags in own]


def _indices(blocks: Any, found: meshio.Mesh) -> list[np.ndarray] | None:
    """The indices of the members of a set in every block of cells; None where they are not indices of these cells."""
    members = [np.asarray([] if some is None else some) for some in blocks]
    fits = len(members) == len(found.cells) and all(
        some.ndim == 1
        and (
            not len(some) or (np.issubdtype(some.dtype, np.integer) and 0 <= some.min() <= some.max() < len(block.data))
        )
        for some, block in zip(members, found.cells, strict=True)
    )
    return [some.astype(int) for some in members] if fits else None


def _are_tags(values: Any) -> bool:
    """Whether data of cells are tags of parts: one integer for each cell, with few different values."""
    arrays = [np.asarray(each) for each in values]
    whole = all(np.issubdtype(each.dtype, np.integer) or not each.size for each in arrays)
    single = all(each.ndim == 1 or each.shape[1:] == (1,) for each in arrays)
    return whole and single and 0 < len(np.unique(np.concatenate([each.reshape(-1) for each in arrays]))) <= _MOST_TAGS


def _names_of(found: meshio.Mesh, key: str, number: int, dim: int) -> list[str]:
    """The names that a table of the file gives to a tag."""
    families = getattr(found, "cell_tags", None)
    if key == "cell_tags" and isinstance(families, dict):
        return [str(name) for name in families.get(number, [])]
    return [
        name
        for name, entry in found.field_data.items()
        if np.shape(entry) == (2,) and int(entry[0]) == number and int(entry[1]) == dim
    ]


def tagged_by_skfem(mesh: skfem.Mesh, cell_data: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The boundaries and subdomains that scikit-fem has written as data of the cells of a mesh."""
    boundaries, subdomains = {}, {}
    for key, values in cell_data.items():
        part = key.split(":", 2)
        if part[0] != "skfem" or len(part) < 3 or len(values) != 1:
            continue
        numbers = np.asarray(values[0]).reshape(-1).astype(np.int64)
        if part[1] == "s":
            subdomains[part[2]] = np.flatnonzero(numbers)
        elif part[1] == "b":
            # Bit k stands for facet k of the cell.
            chosen = (numbers >> np.arange(len(mesh.t2f))[:, None] & 1).astype(bool)
            boundaries[part[2]] = np.unique(mesh.t2f[chosen])
    return boundaries, subdomains


def facets_by_vertices(mesh: skfem.Mesh, vertices: np.ndarray) -> np.ndarray:
    """(k,) the facets with given vertices (k, vertices); -1 where there is no such facet."""
    wanted = np.zeros(mesh.nvertices + 1, dtype=bool)
    wanted[vertices] = True
    wanted[-1] = False
    candidates = np.flatnonzero(wanted[mesh.facets].all(axis=0))
    rows = np.concatenate([np.sort(mesh.facets[:, candidates], axis=0).T, np.sort(vertices, axis=1)])
    _, number = np.unique(rows, axis=0, return_inverse=True)
    number = number.reshape(-1)
    position = np.full(number.max(initial=-1) + 1, -1)
    position[number[: len(candidates)]] = candidates
    return position[number[len(candidates) :]]


def set_of_vertices(mesh: skfem.Mesh, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The (facets, cells) that a set of vertices stands for, one of which is empty; None where it stands for neither.

    They are the first of these whose vertices are the whole set: facets of the boundary with all their vertices in the
    set, such cells, such facets of the boundary and inside.
    """
    chosen = np.zeros(mesh.nvertices, dtype=bool)
    chosen[vertices] = True
    none = np.arange(0)
    facets, cells = (np.flatnonzero(chosen[each].all(axis=0)) for each in (mesh.facets, mesh.t))
    outer = facets[mesh.f2t[1, facets] < 0]
    for some, table, found in (
        (outer, mesh.facets, (outer, none)),
        (cells, mesh.t, (none, cells)),
        (facets, mesh.facets, (facets, none)),
    ):
        if len(some) and len(np.unique(table[:, some])) == len(vertices):
            return found
    return None
