"""Meshes with named boundaries and subdomains: built-in shapes, and files read through meshio."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import skfem

if TYPE_CHECKING:
    import meshio

# What gmsh 4.1 files bring besides the physical names.
_SPURIOUS = "gmsh:"


class MeshFileError(ValueError):
    """A mesh file that cannot be read or used."""


@dataclass(frozen=True)
class Domain:
    """A mesh and the names of its parts.

    Attributes:
        mesh: scikit-fem mesh of intervals, triangles or tetrahedra.
        boundaries: name -> facet indices; always has `all`, every facet of the boundary.
        subdomains: name -> element indices.
    """

    mesh: skfem.Mesh
    boundaries: dict[str, np.ndarray]
    subdomains: dict[str, np.ndarray]

    @property
    def dim(self) -> int:
        return int(self.mesh.dim())

    def __repr__(self) -> str:
        kind = {1: "intervals", 2: "triangles", 3: "tetrahedra"}[self.dim]
        names = ", ".join(f"{name} ({len(facets):,})" for name, facets in self.boundaries.items())
        parts = ", ".join(f"{name} ({len(cells):,})" for name, cells in self.subdomains.items()) or "none"
        return (
            f"{self.mesh.nelements:,} {kind}, {self.mesh.nvertices:,} vertices; boundaries: {names}; subdomains: {parts}"
        )


def interval(size: float = 1.0, origin: float = 0.0, cells: int = 32) -> skfem.Mesh:
    return _with_sides(skfem.MeshLine.init_tensor(origin + np.linspace(0.0, size, cells + 1)))


def rectangle(size: Sequence[float], origin: Sequence[float], cells: Sequence[int]) -> skfem.Mesh:
    axes = [o + np.linspace(0.0, s, n + 1) for s, o, n in zip(size, origin, cells, strict=True)]
    return _with_sides(skfem.MeshTri.init_tensor(*axes))


def box(size: Sequence[float], origin: Sequence[float], cells: Sequence[int]) -> skfem.Mesh:
    axes = [o + np.linspace(0.0, s, n + 1) for s, o, n in zip(size, origin, cells, strict=True)]
    return _with_sides(skfem.MeshTet.init_tensor(*axes))


def disk(radius: float = 1.0, origin: Sequence[float] = (0.0, 0.0), refine: int = 4) -> skfem.Mesh:
    """A disk of triangles; `refine` refinements, each moving the new boundary vertices onto the circle."""
    return skfem.MeshTri.init_circle(refine).scaled(radius).translated(tuple(origin))


def l_shape(size: float = 1.0, origin: Sequence[float] = (0.0, 0.0), refine: int = 4) -> skfem.Mesh:
    """The square (-size, size)^2 about the origin without its lower right quarter."""
    return skfem.MeshTri.init_lshaped().refined(refine).scaled(size).translated(tuple(origin))


def _with_sides(mesh: skfem.Mesh) -> skfem.Mesh:
    """Name the sides of a rectangle or box: left, right (x), bottom, top (y), front, back (z)."""
    sides = (("left", "right"), ("bottom", "top"), ("front", "back"))
    facets = mesh.boundary_facets()
    midpoints = mesh.p[:, mesh.facets[:, facets]].mean(axis=1)
    named = {}
    for axis, names in zip(range(mesh.dim()), sides, strict=False):
        low, high = mesh.p[axis].min(), mesh.p[axis].max()
        for name, value in zip(names, (low, high), strict=True):
            named[name] = facets[np.isclose(midpoints[axis], value, rtol=0.0, atol=1e-10 * (high - low))]
    return mesh.with_boundaries(named)


def read_mesh(path: Path) -> skfem.Mesh:
    """Read a mesh file through meshio; physical names become boundary and subdomain names.

    Raises:
        MeshFileError: the file cannot be read, or holds no intervals, triangles or tetrahedra.
    """
    import meshio

    if not path.is_file():
        raise MeshFileError(f"mesh file {path} does not exist")
    try:
        # meshio prints its own complaint and ends the process on a file it cannot read.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            file_format = "gmsh" if path.suffix == ".msh" else None
            found = meshio.read(path, file_format=file_format)
    except (SystemExit, Exception) as error:
        reason = "" if isinstance(error, SystemExit) or not str(error) else f": {error}"
        raise MeshFileError(f"mesh file {path} cannot be read by meshio{reason}") from None
    return _to_skfem(found, path)


def _to_skfem(found: meshio.Mesh, path: Path) -> skfem.Mesh:
    kinds = {"tetra": (skfem.MeshTet1, 3, "triangle"), "triangle": (skfem.MeshTri1, 2, "line"),
             "line": (skfem.MeshLine1, 1, "vertex")}  # fmt: skip
    present = {block.type for block in found.cells}
    kind = next((kind for kind in kinds if kind in present), None)
    if kind is None:
        raise MeshFileError(
            f"mesh file {path} holds {', '.join(sorted(present)) or 'no cells'}; expected tetra, triangle or line"
        )
    too_rich = sorted(present - {"tetra", "triangle", "line", "vertex"})
    if too_rich:
        raise MeshFileError(
            f"mesh file {path} holds {', '.join(too_rich)}; expected simplices of first order only "
            "(line, triangle, tetra)"
        )
    mesh_type, dim, facet_kind = kinds[kind]
    points = np.asarray(found.points, dtype=np.float64)
    if not np.isfinite(points).all():
        raise MeshFileError(f"mesh file {path} has vertices that are not finite")
    if points.shape[1] > dim and np.ptp(points[:, dim:], axis=0).max() > 1e-12 * max(np.ptp(points), 1e-300):
        raise MeshFileError(f"mesh file {path} holds {kind}s that do not lie in a {dim}-D plane z = constant")
    cells = np.concatenate([block.data for block in found.cells if block.type == kind])
    used, renumbered = np.unique(cells, return_inverse=True)
    new_index = np.full(len(points), -1)
    new_index[used] = np.arange(len(used))
    mesh = mesh_type(np.ascontiguousarray(points[used, :dim].T), np.ascontiguousarray(renumbered.reshape(cells.shape).T))
    if (_measures(mesh) <= 0.0).any():
        raise MeshFileError(f"mesh file {path} has a degenerate {kind} (measure zero)")

    boundaries, subdomains = {}, {}
    facet_of = {tuple(facet): i for i, facet in enumerate(np.sort(mesh.facets, axis=0).T.tolist())}
    for name, members in _named_cells(found, kind).items():
        subdomains[name] = members
    for name, facets in _named_facets(found, facet_kind).items():
        keys = np.sort(new_index[facets], axis=1).tolist()
        boundaries[name] = np.array(sorted({facet_of[tuple(key)] for key in keys if tuple(key) in facet_of}), dtype=int)
    return mesh.with_boundaries(boundaries).with_subdomains(subdomains)


def _measures(mesh: skfem.Mesh) -> np.ndarray:
    corners = mesh.p[:, mesh.t]
    edges = corners[:, 1:] - corners[:, :1]
    return np.abs(np.linalg.det(np.moveaxis(edges, 2, 0)))


def _named_cells(found: meshio.Mesh, kind: str) -> dict[str, np.ndarray]:
    """Indices, among all the cells of one kind, of those that carry a physical name."""
    offsets = np.cumsum([0] + [len(block.data) for block in found.cells if block.type == kind])
    named = {}
    for name, sets in found.cell_sets.items():
        if name.startswith(_SPURIOUS):
            continue
        parts, seen = [], 0
        for block, members in zip(found.cells, sets, strict=True):
            if block.type != kind:
                continue
            if members is not None and len(members):
                parts.append(offsets[seen] + np.asarray(members, dtype=int))
            seen += 1
        if parts:
            named[name] = np.unique(np.concatenate(parts))
    return named


def _named_facets(found: meshio.Mesh, kind: str) -> dict[str, np.ndarray]:
    """Vertex tuples (k, dim) of the facets that carry a physical name."""
    cells = [block.data for block in found.cells if block.type == kind]
    if not cells:
        return {}
    together = np.concatenate(cells)
    return {name: together[members] for name, members in _named_cells(found, kind).items()}


def domain(mesh: skfem.Mesh, refine: int = 0) -> Domain:
    """Refine a mesh uniformly and collect the names of its parts."""
    mesh = mesh.refined(refine) if refine else mesh
    boundaries = {name: np.asarray(facets, dtype=int) for name, facets in (mesh.boundaries or {}).items()}
    # Named facets inside the domain (an interface) are no boundary: a condition there would be silently wrong.
    outer = mesh.boundary_facets()
    boundaries = {name: facets for name, facets in boundaries.items() if np.isin(facets, outer).all() and len(facets)}
    boundaries["all"] = outer
    subdomains = {name: np.asarray(cells, dtype=int) for name, cells in (mesh.subdomains or {}).items()}
    return Domain(mesh, boundaries, subdomains)
