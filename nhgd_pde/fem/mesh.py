"""Meshes with named boundaries and subdomains: built-in shapes, and files read through meshio."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import skfem

if TYPE_CHECKING:
    import meshio

# What gmsh 4.1 files bring besides the physical names.
_SPURIOUS = "gmsh:"


@dataclass(frozen=True)
class Cell:
    """A kind of cell.

    Attributes:
        plural: what many of them are called.
        mesh: scikit-fem's class of their meshes.
        dim: dimension.
        facet: meshio's name of their facets.
        order: scikit-fem's number of each vertex in VTK's order, which is meshio's too.
    """

    plural: str
    mesh: type[skfem.Mesh]
    dim: int
    facet: str
    order: tuple[int, ...]


# By meshio's names.
CELLS = {
    "tetra": Cell("tetrahedra", skfem.MeshTet1, 3, "triangle", (0, 1, 2, 3)),
    "hexahedron": Cell("hexahedra", skfem.MeshHex1, 3, "quad", (0, 3, 6, 2, 1, 5, 7, 4)),
    "triangle": Cell("triangles", skfem.MeshTri1, 2, "line", (0, 1, 2)),
    "quad": Cell("quadrilaterals", skfem.MeshQuad1, 2, "line", (0, 1, 2, 3)),
    "line": Cell("intervals", skfem.MeshLine1, 1, "vertex", (0, 1)),
}


class MeshFileError(ValueError):
    """A mesh file that cannot be read or used."""


@dataclass(frozen=True)
class Domain:
    """A mesh and the names of its parts.

    Attributes:
        mesh: scikit-fem mesh of cells of one kind, of first order.
        boundaries: name -> facet indices; always has `all`, every facet of the boundary.
        subdomains: name -> element indices.
    """

    mesh: skfem.Mesh
    boundaries: dict[str, np.ndarray]
    subdomains: dict[str, np.ndarray]

    @property
    def dim(self) -> int:
        return int(self.mesh.dim())

    @property
    def cell(self) -> str:
        """The kind of its cells, a key of `CELLS`."""
        return _cell_of(self.mesh)

    def __repr__(self) -> str:
        names = ", ".join(f"{name} ({len(facets):,})" for name, facets in self.boundaries.items())
        parts = ", ".join(f"{name} ({len(cells):,})" for name, cells in self.subdomains.items()) or "none"
        size = f"{self.mesh.nelements:,} {CELLS[self.cell].plural}, {self.mesh.nvertices:,} vertices"
        return f"{size}; boundaries: {names}; subdomains: {parts}"


def _cell_of(mesh: skfem.Mesh) -> str:
    return next(name for name, cell in CELLS.items() if cell.mesh.elem.refdom is mesh.elem.refdom)


def interval(size: float = 1.0, origin: float = 0.0, cells: int = 32) -> skfem.Mesh:
    return _with_sides(skfem.MeshLine.init_tensor(origin + np.linspace(0.0, size, cells + 1)))


def rectangle(
    size: Sequence[float],
    origin: Sequence[float],
    cells: Sequence[int],
    cell: Literal["triangle", "quadrilateral"] = "triangle",
) -> skfem.Mesh:
    axes = [o + np.linspace(0.0, s, n + 1) for s, o, n in zip(size, origin, cells, strict=True)]
    kind = {"triangle": skfem.MeshTri, "quadrilateral": skfem.MeshQuad}[cell]
    return _with_sides(kind.init_tensor(*axes))


def box(
    size: Sequence[float],
    origin: Sequence[float],
    cells: Sequence[int],
    cell: Literal["tetrahedron", "hexahedron"] = "tetrahedron",
) -> skfem.Mesh:
    axes = [o + np.linspace(0.0, s, n + 1) for s, o, n in zip(size, origin, cells, strict=True)]
    kind = {"tetrahedron": skfem.MeshTet, "hexahedron": skfem.MeshHex}[cell]
    return _with_sides(kind.init_tensor(*axes))


def disk(radius: float = 1.0, origin: Sequence[float] = (0.0, 0.0), refine: int = 4) -> skfem.Mesh:
    """A disk of triangles; `refine` refinements, each moving the new boundary vertices onto the circle."""
    return skfem.MeshTri.init_circle(refine).scaled(float(radius)).translated(tuple(origin))


def l_shape(size: float = 1.0, origin: Sequence[float] = (0.0, 0.0), refine: int = 4) -> skfem.Mesh:
    """The square (-size, size)^2 about the origin without its lower right quarter."""
    mesh = skfem.MeshTri.init_lshaped().refined(refine)
    # scikit-fem leaves out the upper right quarter: turn it clockwise.
    turned = skfem.MeshTri(np.stack([mesh.p[1], -mesh.p[0]]), mesh.t)
    return turned.scaled(float(size)).translated(tuple(origin))


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
    return _keep_facets(mesh, mesh.with_boundaries(named))


def _keep_facets(mesh: skfem.Mesh, copy: skfem.Mesh) -> skfem.Mesh:
    """Hand the facets that scikit-fem has found to a copy of the mesh, which would look for them again."""
    for name in ("_facets", "_t2f", "_f2t"):
        if hasattr(mesh, name):
            setattr(copy, name, getattr(mesh, name))
    return copy


def read_mesh(path: Path) -> skfem.Mesh:
    """Read a mesh file through meshio; physical names become boundary and subdomain names.

    Raises:
        MeshFileError: the file cannot be read, or does not hold sound cells of one kind of `CELLS`.
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
            file_format = "gmsh" if path.suffix == ".msh" else None
            found = meshio.read(path, file_format=file_format)
    except ModuleNotFoundError as error:
        raise MeshFileError(f"mesh file {path} cannot be read: meshio needs the package {error.name}") from None
    except (SystemExit, Exception) as error:
        reason = "" if isinstance(error, SystemExit) or not str(error) else f": {error}"
        raise MeshFileError(f"mesh file {path} cannot be read by meshio{reason}") from None
    return _to_skfem(found, path)


def _to_skfem(found: meshio.Mesh, path: Path) -> skfem.Mesh:
    present = {block.type for block in found.cells if len(block.data)}
    kind = next((kind for kind in CELLS if kind in present), None)
    if kind is None:
        held = ", ".join(sorted(present)) or "no cells"
        raise MeshFileError(f"mesh file {path} holds {held}; expected tetra, hexahedron, triangle, quad or line")
    too_rich = sorted(present - {*CELLS, "vertex"})
    if too_rich:
        raise MeshFileError(
            f"mesh file {path} holds {', '.join(too_rich)}; expected cells of first order only "
            "(line, triangle, quad, tetra, hexahedron)"
        )
    cell = CELLS[kind]
    dim = cell.dim
    foreign = sorted(present - {kind, cell.facet, "line", "vertex"})
    if foreign:
        raise MeshFileError(
            f"mesh file {path} mixes {kind} with {', '.join(foreign)}; expected cells of one kind, here {kind}, "
            f"with {cell.facet} for parts of the boundary"
        )
    points = np.asarray(found.points, dtype=np.float64)
    cells = np.concatenate([block.data for block in found.cells if block.type == kind])
    used, renumbered = np.unique(cells, return_inverse=True)
    if used[0] < 0 or used[-1] >= len(points):
        raise MeshFileError(f"mesh file {path} has cells of vertices that it does not have")
    corners = points[used]
    if not np.isfinite(corners).all():
        raise MeshFileError(f"mesh file {path} has vertices that are not finite")
    if corners.shape[1] < dim or (np.ptp(corners[:, dim:], axis=0) > 1e-12 * np.ptp(corners)).any():
        plane = {1: "on the x axis", 2: "in a plane z = constant", 3: "in space"}[dim]
        raise MeshFileError(f"mesh file {path} holds {kind} cells that do not lie {plane}")
    vertices = np.empty(cells.shape[::-1], dtype=np.int64)
    vertices[list(cell.order)] = renumbered.reshape(cells.shape).T
    _check_shapes(corners[vertices.T][..., :dim], kind, path)
    mesh = cell.mesh(np.ascontiguousarray(corners[:, :dim].T), vertices)
    if np.bincount(mesh.t2f.reshape(-1)).max() > 2:
        raise MeshFileError(f"mesh file {path} has {kind} cells that overlap: three of them share a facet")

    new_index = np.full(len(points), -1)
    new_index[used] = np.arange(len(used))
    facet_of = {tuple(facet): i for i, facet in enumerate(np.sort(mesh.facets, axis=0).T.tolist())}
    boundaries = {}
    for name, facets in _named_facets(found, cell.facet).items():
        keys = np.sort(new_index[facets], axis=1).tolist()
        known = {facet_of[tuple(key)] for key in keys if tuple(key) in facet_of}
        boundaries[name] = np.array(sorted(known), dtype=int)
    return mesh.with_boundaries(boundaries).with_subdomains(_named_cells(found, kind))


def _check_shapes(corners: np.ndarray, kind: str, path: Path) -> None:
    """Refuse cells, given by their corners (cells, vertices, dim), that are flat to rounding or folded.

    The map from the reference cell must keep its orientation. On simplices its determinant is a constant, on
    quadrilaterals affine, so that corners tell; on hexahedra, where it is quadratic in each coordinate, the
    nodes of the triquadratic element stand for all points.
    """
    elem, dim = CELLS[kind].mesh.elem(), CELLS[kind].dim
    nodes = np.indices((3,) * dim).reshape(dim, -1) / 2.0
    if corners.shape[1] == dim + 1:
        nodes = nodes[:, :1]
    low, high = np.full(len(corners), np.inf), np.full(len(corners), -np.inf)
    edges = corners - corners[:, :1]
    for node in nodes.T:
        gradients = np.stack([elem.lbasis(node[:, None], i)[1][:, 0] for i in range(corners.shape[1])])
        determinants = np.linalg.det(np.einsum("evd,vk->edk", edges, gradients))
        low, high = np.minimum(low, determinants), np.maximum(high, determinants)
    rounding = 1e-14 * np.linalg.norm(edges, axis=2).max(axis=1) ** dim
    flat = np.maximum(high, -low) <= rounding
    folded = (low <= rounding) & (high >= -rounding)
    for wrong, name, reason in (
        (flat, "degenerate", "measure zero"),
        (folded, "folded", "not convex, flat at a corner, or with its vertices out of order"),
    ):
        if wrong.any():
            centre = ", ".join(f"{x:.4g}" for x in corners[np.argmax(wrong)].mean(axis=0))
            raise MeshFileError(f"mesh file {path} has a {name} {kind} ({reason}) at ({centre})")


def _sets(found: meshio.Mesh) -> dict[str, list[np.ndarray]]:
    """Name -> indices in every block of cells."""
    sets = {
        name: [np.asarray([] if members is None else members, dtype=int) for members in blocks]
        for name, blocks in found.cell_sets.items()
        if not name.startswith(_SPURIOUS)
    }
    # Older gmsh formats bring numbers, and a table of their names.
    numbers = found.cell_data.get("gmsh:physical")
    for name, (number, dim) in found.field_data.items() if numbers is not None else ():
        blocks = zip(found.cells, numbers, strict=True)
        sets.setdefault(name, [np.flatnonzero((tags == number) & (block.dim == dim)) for block, tags in blocks])
    return sets


def _named_cells(found: meshio.Mesh, kind: str) -> dict[str, np.ndarray]:
    """Indices, among all the cells of one kind, of those that carry a physical name."""
    named = {}
    for name, sets in _sets(found).items():
        parts, before = [], 0
        for block, members in zip(found.cells, sets, strict=True):
            if block.type == kind:
                parts.append(before + members)
                before += len(block.data)
        together = np.unique(np.concatenate(parts)) if parts else np.arange(0)
        if len(together):
            named[name] = together
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
    # Named facets inside the domain (an interface) are no boundary: a condition there would mislead.
    outer = mesh.boundary_facets()
    boundaries = {
        name: np.asarray(facets, dtype=int)
        for name, facets in (mesh.boundaries or {}).items()
        if len(facets) and np.isin(facets, outer).all()
    }
    subdomains = {name: np.asarray(cells, dtype=int) for name, cells in (mesh.subdomains or {}).items()}
    for _ in range(refine):
        mesh, boundaries, subdomains = _halved(mesh, boundaries, subdomains)
    return Domain(mesh, {**boundaries, "all": mesh.boundary_facets()}, subdomains)


def _halved(
    mesh: skfem.Mesh, boundaries: dict[str, np.ndarray], subdomains: dict[str, np.ndarray]
) -> tuple[skfem.Mesh, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Halve every edge, and find the named parts again."""
    cell = _cell_of(mesh)
    if cell in ("quad", "hexahedron"):
        fine = type(mesh)(mesh.p, mesh.t).with_subdomains(subdomains).refined()
        # scikit-fem numbers the midpoints of facets after the vertices and, in space, the midpoints of edges; the
        # greatest vertex of a piece of a boundary facet is the midpoint of the whole.
        before = mesh.nvertices + (mesh.nedges if cell == "hexahedron" else 0)
        outer = fine.boundary_facets()
        whole = fine.facets[:, outer].max(axis=0) - before
        pieces = {name: outer[np.isin(whole, facets)] for name, facets in boundaries.items()}
        return fine, pieces, dict(fine.subdomains or {})
    if cell == "triangle":
        fine = skfem.MeshTri(mesh.p, mesh.t).with_boundaries(boundaries).with_subdomains(subdomains).refined()
        return fine, dict(fine.boundaries or {}), dict(fine.subdomains or {})
    if cell == "line":
        # scikit-fem puts the halves of a cell side by side, but names others; vertices keep their numbers.
        fine = skfem.MeshLine(mesh.p, mesh.t).refined()
        halves = {name: np.sort(np.concatenate([2 * c, 2 * c + 1])) for name, c in subdomains.items()}
        return fine, boundaries, halves
    fine = skfem.MeshTet(mesh.p, mesh.t).with_subdomains(subdomains).refined()
    pieces = {name: _children(mesh, fine, facets) for name, facets in boundaries.items()}
    return fine, pieces, dict(fine.subdomains or {})


def _children(coarse: skfem.Mesh, fine: skfem.Mesh, facets: np.ndarray) -> np.ndarray:
    """The boundary facets of refined tetrahedra that make up some boundary facets of the coarse one."""
    a, b, c = np.sort(coarse.facets[:, facets], axis=0)
    # scikit-fem numbers the midpoints of the edges after the vertices.
    ab, bc, ac = (
        coarse.nvertices + _positions(np.sort(coarse.edges, axis=0), np.stack(edge))
        for edge in ((a, b), (b, c), (a, c))
    )
    triangles = ((a, ab, ac), (b, ab, bc), (c, bc, ac), (ab, bc, ac))
    outer = fine.boundary_facets()
    found = [_positions(np.sort(fine.facets[:, outer], axis=0), np.sort(each, axis=0)) for each in triangles]
    return np.sort(outer[np.concatenate(found)])


def _positions(table: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where each of some columns stands in a table (k, n) of different columns, which must have it."""
    _, number = np.unique(np.hstack([table, columns]), axis=1, return_inverse=True)
    number = number.reshape(-1)
    position = np.empty(number.max() + 1, dtype=int)
    position[number[: table.shape[1]]] = np.arange(table.shape[1])
    return position[number[table.shape[1] :]]
