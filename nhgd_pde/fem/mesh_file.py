"""Mesh files, read through meshio and checked."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import skfem

from .cells import CELLS, MeshFileError, place_text
from .digits import rounding_step
from .facet_tables import with_facets
from .mesh_checks import MeshOfFile, misfit, unsound_cells
from .mesh_names import Parts, facets_by_vertices, parts_of, set_of_vertices, tagged_by_skfem
from .planes import NotFlatError, flattened
from .refinement import with_facets_of

if TYPE_CHECKING:
    import meshio

# Cells in space that are no kind of mesh of their own.
_SOLIDS = frozenset({"wedge", "pyramid"})


class FoundMesh(NamedTuple):
    """A mesh of a file.

    Attributes:
        mesh: the mesh of straight cells, with the names of its parts.
        unusable: for names that stand for neither facets nor cells: name -> reason why it cannot be used.
        curved: the same mesh with cells of second order; None where all cells are straight.
    """

    mesh: skfem.Mesh
    unusable: dict[str, str]
    curved: skfem.Mesh | None = None


@dataclass(frozen=True)
class Reading:
    """How a mesh is read.

    Attributes:
        cracks: cells may touch without sharing vertices and facets.
        straight: cells of second order become straight.
        cell: `triangle` splits every quadrilateral into two triangles; None leaves cells as they are.
    """

    cracks: bool = False
    straight: bool = False
    cell: Literal["triangle"] | None = None


def read(path: Path, reading: Reading = Reading(), facets: Path | None = None) -> FoundMesh:
    """Reads a mesh file; its names become boundaries (facets, also inside) and subdomains of the mesh.

    Args:
        path: the file.
        reading: how it is read.
        facets: a second file with facets of the mesh and their tags.

    Raises:
        MeshFileError: a file cannot be read, or does not hold sound cells of one kind of `CELLS` that fit together.
    """
    found = read_meshio(path)
    if facets is not None:
        from .facet_files import joined

        sides = read_meshio(facets)
        try:
            found = joined(found, sides)
        except MeshFileError as error:
            raise MeshFileError(f"mesh file {facets} {error}") from None
    try:
        return to_skfem(found, reading)
    except MeshFileError as error:
        told = _hint(path)
        raise MeshFileError(f"mesh file {path} {error}{'' if told is None else f'; it {told}'}") from None


def read_meshio(path: Path) -> meshio.Mesh:
    """Reads a file by meshio, without its messages.

    Raises:
        MeshFileError: the file cannot be read.
    """
    import meshio

    if not path.is_file():
        raise MeshFileError(f"mesh file {path} does not exist")
    try:
        # meshio prints its own complaint and ends the process on a file it cannot read.
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            return meshio.read(path, file_format="gmsh" if path.suffix == ".msh" else None)
    except ModuleNotFoundError as error:
        raise MeshFileError(
            f"mesh file {path} cannot be read: meshio needs the package {error.name}, which comes with "
            "`pip install 'nhgd-pde[formats]'`"
        ) from None
    except (SystemExit, Exception) as error:
        told = _hint(path)
        if told is not None:
            raise MeshFileError(f"mesh file {path} {told}") from None
        reason = "" if isinstance(error, SystemExit) or not str(error) else f": {error}"
        raise MeshFileError(f"mesh file {path} cannot be read by meshio{reason}") from None


def _hint(path: Path) -> str | None:
    """What a file is that cannot be used, and what to do; None where the end of its name tells nothing."""
    # Sound meshes are read without loading the table of hints.
    from .mesh_file_hints import hint

    return hint(path)


def to_skfem(original: meshio.Mesh, reading: Reading = Reading()) -> FoundMesh:
    """Converts and checks a mesh of meshio (`read`). Messages of errors begin with a verb whose subject is the file."""
    found = _first_order(original, reading)
    kind = _kind(found)
    cell = CELLS[kind]
    points = np.asarray(found.points, dtype=np.float64)
    cells = np.concatenate([block.data for block in found.cells if block.type == kind])
    parts = parts_of(found, kind)
    cells, kept = _once(cells, parts, kind, points)
    used, renumbered = np.unique(cells, return_inverse=True)
    if used[0] < 0 or used[-1] >= len(points):
        raise MeshFileError("has cells with vertices that the file does not contain")
    further = _further(original, kind, kept, reading)
    places = points[used]
    _check_finite([places, *(at for _, _, at in further)])
    step = rounding_step(places)
    corners, *between = _flat([places, *(at for _, _, at in further)], kind, step)
    vertices = np.empty(cells.shape[::-1], dtype=np.int64)
    vertices[list(cell.order)] = renumbered.reshape(cells.shape).T
    sentence = unsound_cells(corners[vertices.T], kind)
    if sentence is None:
        mesh = with_facets(cell.mesh(np.ascontiguousarray(corners.T), vertices))
        precision = np.finfo(found.points.dtype).eps if np.issubdtype(found.points.dtype, np.floating) else 0.0
        sentence = misfit(MeshOfFile(mesh, kind, places, used, float(precision), step), reading.cracks)
    if sentence is not None:
        raise MeshFileError(sentence)
    geometry = _geometry(mesh, renumbered.reshape(cells.shape), further, between)
    new_index = np.full(len(points) + 1, -1)
    new_index[used] = np.arange(len(used))
    cell_data = {} if kept is not None else found.cell_data
    return FoundMesh(*_named(mesh, kind, parts, new_index, cell_data), geometry)


def _first_order(found: meshio.Mesh, reading: Reading) -> meshio.Mesh:
    """The mesh with straight cells in place of those of second order, of triangles alone if these are wanted."""
    present = {block.type for block in found.cells if len(block.data)}
    if present - {*CELLS, "vertex"}:
        # Loaded here, because most meshes do without it.
        from .second_order import SECOND_ORDER, straightened

        if present & SECOND_ORDER.keys():
            if reading.cell is not None and not reading.straight:
                raise MeshFileError("holds cells of second order, which are split with `geometry: straight` only")
            found = straightened(found)
    if reading.cell == "triangle":
        from .split_cells import split

        found = split(found)
    return found


def _check_finite(arrays: list[np.ndarray]) -> None:
    if not all(np.isfinite(each).all() for each in arrays):
        raise MeshFileError("has vertices that are not finite")


Further = list[tuple[tuple[int, ...], np.ndarray, np.ndarray]]


def _geometry(mesh: skfem.Mesh, cells: np.ndarray, further: Further, points: list[np.ndarray]) -> skfem.Mesh | None:
    """The mesh with the further nodes of its cells (cells, corners) at points (k, dim); None if it is straight."""
    if not further:
        return None
    from .second_order import curved

    return curved(mesh, cells, [(each, those, at.T) for (each, those, _), at in zip(further, points, strict=True)])


def _further(found: meshio.Mesh, kind: str, kept: np.ndarray | None, reading: Reading) -> Further:
    """The corners of each further node of cells of second order, the cells that have it, and its points."""
    if reading.straight or all(block.type in (*CELLS, "vertex") for block in found.cells):
        return []
    from .second_order import further_nodes

    result, points = [], np.asarray(found.points, dtype=np.float64)
    for corners, nodes in further_nodes(found, kind):
        own = nodes if kept is None else nodes[kept]
        those = np.flatnonzero(own >= 0)
        if len(those) and own.max() >= len(points):
            raise MeshFileError("has cells with vertices that the file does not contain")
        result.append((corners, those, points[own[those]]))
    return result


def _kind(found: meshio.Mesh) -> str:
    """The kind of the cells of a file, which must all be of one kind."""
    present = {block.type for block in found.cells if len(block.data)}
    kind = next((kind for kind in CELLS if kind in present), None)
    others = sorted(present - {*CELLS, "vertex"})
    if kind is None or (others and not set(others) <= _SOLIDS):
        held = ", ".join(others or sorted(present)) or "no cells"
        raise MeshFileError(
            f"holds {held}; expected tetra, hexahedron, triangle, quad or line, of first or second order"
        )
    facet = CELLS[kind].facet
    foreign = sorted(present - {kind, facet, "line", "vertex"})
    if foreign:
        raise MeshFileError(
            f"mixes {kind} with {', '.join(foreign)}; expected cells of one kind, here {kind}, "
            f"with {facet} for parts of the boundary: {_way_out(present)}"
        )
    return kind


def _way_out(present: set[str]) -> str:
    """What to do with a mesh of several kinds of cells."""
    if present <= {"triangle", "quad", "line", "vertex"}:
        return (
            "take `cell: triangle`, which splits every quadrilateral into two triangles, or make one kind (gmsh: leave "
            "out `Recombine Surface` for triangles, `Mesh.SubdivisionAlgorithm = 1` for quadrilaterals alone)"
        )
    return (
        "make one kind (gmsh: leave out `Recombine` and extruded `Layers` with `Recombine` for tetrahedra, "
        "`Mesh.SubdivisionAlgorithm = 2` for hexahedra alone)"
    )


def _once(cells: np.ndarray, parts: Parts, kind: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Removes copies of cells (n, vertices), for files that list a cell once for each of its names.

    Returns the cells that are kept, with the names of their copies, and their indices, None where there is no copy.
    """
    rows = np.sort(cells, axis=1)
    order = np.lexsort(rows.T)
    again = np.append(False, (rows[order][1:] == rows[order][:-1]).all(axis=1))
    if not again.any():
        return cells, None
    # lexsort is stable, so the first of equal cells is the first one in the file.
    original = np.empty(len(cells), dtype=np.int64)
    original[order] = order[np.flatnonzero(~again)][np.cumsum(~again) - 1]
    copies = np.flatnonzero(np.bincount(original, minlength=len(cells))[original] > 1)
    nameless = np.setdiff1d(copies, np.concatenate([copies[:0], *parts.cells.values()]))
    twice = [nameless]
    for members in parts.cells.values():
        _, first = np.unique(original[members], return_index=True)
        twice.append(np.delete(members, first))
    wrong = np.concatenate(twice)
    if len(wrong):
        numbers = ", ".join(str(vertex) for vertex in cells[wrong[0]])
        place = points[cells[wrong[0]]].mean(axis=0)
        raise MeshFileError(
            f"has {kind} cells that overlap: the same cell stands twice, at {place_text(place)} with the vertices "
            f"{numbers} (counted from 0); expected every cell once, or once for each of its groups"
        )
    kept = np.unique(original)
    for name, members in parts.cells.items():
        parts.cells[name] = np.searchsorted(kept, np.unique(original[members]))
    return cells[kept], kept


def _flat(several: list[np.ndarray], kind: str, step: float) -> list[np.ndarray]:
    """The coordinates of several arrays of vertices in the dimension of the cells."""
    places = np.concatenate(several)
    dim = CELLS[kind].dim
    wanted = {1: "on a straight line", 2: "in a plane", 3: "in space"}[dim]
    if places.shape[1] < dim:
        raise MeshFileError(f"holds {kind} cells with {places.shape[1]} coordinates; expected {dim}")
    try:
        return np.split(flattened(places, dim, 2.0 * step), np.cumsum([len(each) for each in several])[:-1])
    except NotFlatError as error:
        where = place_text(places[error.index])
        raise MeshFileError(
            f"holds {kind} cells that do not lie {wanted}: the vertex at {where} is {error.distance:.3g} away from it"
        ) from None


def _named(
    mesh: skfem.Mesh, kind: str, parts: Parts, new_index: np.ndarray, cell_data: dict[str, list[np.ndarray]]
) -> tuple[skfem.Mesh, dict[str, str]]:
    """A mesh with the names of its parts, and the names that cannot be used, with the reasons."""
    boundaries, subdomains = tagged_by_skfem(mesh, cell_data)
    unusable = dict(parts.unusable)
    subdomains = {**parts.cells, **subdomains}
    for name, vertices in parts.facets.items():
        facets = facets_by_vertices(mesh, new_index[vertices])
        missing = int((facets < 0).sum())
        if missing:
            plural = CELLS[kind].plural
            count = (
                f"{len(facets):,} facets, {missing:,} of which belong" if len(facets) > 1 else "1 facet, which belongs"
            )
            unusable[name] = f"names {count} to none of the {plural}"
        else:
            boundaries[name] = np.unique(facets)
    for name, vertices in parts.vertices.items():
        if name in boundaries or name in subdomains:
            continue
        numbers = new_index[vertices]
        found = None if (numbers < 0).any() else set_of_vertices(mesh, numbers)
        if found is None:
            unusable[name] = f"names {len(vertices):,} vertices, which do not make up facets or cells"
        elif len(found[0]):
            boundaries[name] = found[0]
        else:
            subdomains[name] = found[1]
    if "all" in boundaries and not np.array_equal(np.sort(boundaries["all"]), mesh.boundary_facets()):
        raise MeshFileError("names a part of its boundary 'all', which stands for the whole boundary: rename that part")
    return with_facets_of(mesh, mesh.with_boundaries(boundaries).with_subdomains(subdomains)), unusable
