"""Meshes with named boundaries and subdomains: built-in shapes, and files read through meshio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
import skfem

from .cells import CELLS, kind_of
from .facet_tables import with_facets
from .refinement import halved, with_facets_of

if TYPE_CHECKING:
    from .seams import Seam


@dataclass(frozen=True)
class Domain:
    """A mesh and the names of its parts.

    Attributes:
        mesh: scikit-fem mesh of cells of one kind, of first order.
        boundaries: name -> facet indices; always has `all`, every facet of the boundary without those of seams.
        subdomains: name -> element indices.
        inside: name -> facet indices of curves (in 3-D of surfaces) that lie wholly or partly inside the domain.
        unusable: name -> reason why a name of the mesh file cannot be used, such as "names 2 vertices ...".
        seams: the pairs of sides that are periodic, and count as one.
        curved: the mesh with cells of second order, with the same numbers; None where all cells are straight.
    """

    mesh: skfem.Mesh
    boundaries: dict[str, np.ndarray]
    subdomains: dict[str, np.ndarray]
    inside: dict[str, np.ndarray] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    seams: tuple[Seam, ...] = ()
    curved: skfem.Mesh | None = None

    @property
    def geometry(self) -> skfem.Mesh:
        """The mesh whose cells are integrated over."""
        return self.mesh if self.curved is None else self.curved

    @property
    def dim(self) -> int:
        return int(self.mesh.dim())

    @property
    def cell(self) -> str:
        """The kind of the cells, a key of `CELLS`."""
        return kind_of(self.mesh)

    @property
    def facets(self) -> dict[str, np.ndarray]:
        """Name -> facet indices, for names on the boundary and inside."""
        return {**self.inside, **self.boundaries}

    @cached_property
    def pieces(self) -> np.ndarray:
        """(cells,) for each cell the number of its piece of the mesh; different pieces share no facet and no seam."""
        inner = self.mesh.f2t[:, self.mesh.f2t[1] >= 0]
        first, second = np.concatenate([inner, *(self.mesh.f2t[0, seam.facets] for seam in self.seams)], axis=1)
        count = self.mesh.nelements
        graph = sp.coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
        return np.asarray(sp.csgraph.connected_components(graph, directed=False)[1])

    @cached_property
    def unglued(self) -> Domain:
        """The same mesh without seams, on which functions may have different values on the two sides of a seam."""
        return replace(self, seams=()) if self.seams else self

    def glued(self, seams: Sequence[Seam]) -> Domain:
        """The domain with periodic sides, which are no longer parts of its boundary `all`."""
        sides = np.concatenate([np.zeros(0, dtype=int), *(seam.facets.reshape(-1) for seam in seams)])
        outer = {**self.boundaries, "all": np.setdiff1d(self.boundaries["all"], sides)}
        return replace(self, boundaries=outer, seams=tuple(seams))

    def described(self, name: str) -> str:
        """What a name of the mesh stands for, as text after "which"; empty where the mesh does not have the name."""
        if name in self.inside:
            facets = self.inside[name]
            inner = int((self.mesh.f2t[1, facets] >= 0).sum())
            part = "" if inner == len(facets) else f" with {inner:,} of its {len(facets):,} facets"
            return f"lies inside the domain{part}, where dirichlet conditions and terms of the objective alone can be"
        if name in self.subdomains:
            return f"is a subdomain of {len(self.subdomains[name]):,} cells"
        if name in self.boundaries:
            return f"is a part of the boundary, of {len(self.boundaries[name]):,} facets"
        return self.unusable.get(name, "")

    @property
    def overlaps(self) -> list[str]:
        """The facets and cells that names of the mesh share, one sentence per pair of names; `all` is left out."""
        facets = {name: each for name, each in self.facets.items() if name != "all"}
        return _shared(facets, "facets", self.mesh.nfacets) + _shared(self.subdomains, "cells", self.mesh.nelements)

    def __repr__(self) -> str:
        def listed(parts: Mapping[str, np.ndarray]) -> str:
            return ", ".join(f"{name} ({len(members):,})" for name, members in parts.items()) or "none"

        cells = f"{'' if self.curved is None else 'curved '}{CELLS[self.cell].plural}"
        size = f"{self.mesh.nelements:,} {cells}, {self.mesh.nvertices:,} vertices"
        pieces = int(self.pieces.max()) + 1
        if pieces > 1:
            size += f" in {pieces:,} pieces that share no facet"
        inside = f"; inside the domain: {listed(self.inside)}" if self.inside else ""
        overlaps = "".join(f"; {each}" for each in self.overlaps)
        seams = "".join(f"; {first} and {second} are periodic" for first, second in (each.names for each in self.seams))
        parts = f"boundaries: {listed(self.boundaries)}{inside}; subdomains: {listed(self.subdomains)}"
        return f"{size}; {parts}{seams}{overlaps}"


def _shared(parts: Mapping[str, np.ndarray], what: str, count: int) -> list[str]:
    """Sentences on the pairs of parts that share some of the `count` facets or cells of a mesh."""
    names = list(parts)
    rows = np.concatenate([np.zeros(0, dtype=int), *(np.full(len(parts[name]), k) for k, name in enumerate(names))])
    columns = np.concatenate([np.zeros(0, dtype=int), *parts.values()])
    table = sp.csr_array((np.ones(len(rows), dtype=int), (rows, columns)), shape=(len(names), count))
    common = sp.triu(table @ table.T, k=1).tocoo()
    return [
        f"{names[i]} and {names[j]} share {number:,} {what if number > 1 else what[:-1]}"
        for i, j, number in zip(*common.coords, common.data, strict=True)
    ]


def interval(size: float = 1.0, origin: float = 0.0, cells: int = 32) -> skfem.Mesh:
    return _grid(skfem.MeshLine, [size], [origin], [cells])


def rectangle(
    size: Sequence[float],
    origin: Sequence[float],
    cells: Sequence[int],
    cell: Literal["triangle", "quadrilateral"] = "triangle",
) -> skfem.Mesh:
    return _grid({"triangle": skfem.MeshTri, "quadrilateral": skfem.MeshQuad}[cell], size, origin, cells)


def box(
    size: Sequence[float],
    origin: Sequence[float],
    cells: Sequence[int],
    cell: Literal["tetrahedron", "hexahedron"] = "tetrahedron",
) -> skfem.Mesh:
    return _grid({"tetrahedron": skfem.MeshTet, "hexahedron": skfem.MeshHex}[cell], size, origin, cells)


def disk(radius: float = 1.0, origin: Sequence[float] = (0.0, 0.0), refine: int = 4) -> skfem.Mesh:
    """A disk of triangles, refined `refine` times; each refinement moves the new boundary vertices onto the circle."""
    return skfem.MeshTri.init_circle(refine).scaled(float(radius)).translated(tuple(origin))


def l_shape(size: float = 1.0, origin: Sequence[float] = (0.0, 0.0), refine: int = 4) -> skfem.Mesh:
    """The square (-size, size)^2 about the origin without its lower right quarter."""
    mesh = skfem.MeshTri.init_lshaped().refined(refine)
    # scikit-fem leaves out the upper right quarter, so the mesh is turned clockwise.
    turned = skfem.MeshTri(np.stack([mesh.p[1], -mesh.p[0]]), mesh.t)
    return turned.scaled(float(size)).translated(tuple(origin))


def _grid(kind: type[skfem.Mesh], size: Sequence[float], origin: Sequence[float], cells: Sequence[int]) -> skfem.Mesh:
    """A tensor grid with names for its sides: left, right (x), bottom, top (y), front, back (z)."""
    axes = (o + np.linspace(0.0, s, n + 1) for s, o, n in zip(size, origin, cells, strict=True))
    mesh = with_facets(kind.init_tensor(*axes))
    facets = mesh.boundary_facets()
    midpoints = mesh.p[:, mesh.facets[:, facets]].mean(axis=1)
    named = {}
    sides = (("left", "right"), ("bottom", "top"), ("front", "back"))
    for names, middle, x in zip(sides, midpoints, mesh.p, strict=False):
        for name, value in zip(names, (x.min(), x.max()), strict=True):
            named[name] = facets[np.isclose(middle, value, rtol=0.0, atol=1e-10 * np.ptp(x))]
    return with_facets_of(mesh, mesh.with_boundaries(named))


def domain(
    mesh: skfem.Mesh, refine: int = 0, unusable: Mapping[str, str] | None = None, curved: skfem.Mesh | None = None
) -> Domain:
    """The domain of a mesh that is refined uniformly, with the names of its parts.

    Args:
        mesh: the mesh, with its named boundaries and subdomains.
        refine: number of refinements.
        unusable: name -> reason why a name of the mesh file cannot be used.
        curved: the mesh with cells of second order, which is not refined.
    """
    facets = {name: np.asarray(each, dtype=int) for name, each in (mesh.boundaries or {}).items() if len(each)}
    with_facets(mesh)
    subdomains = {name: np.asarray(cells, dtype=int) for name, cells in (mesh.subdomains or {}).items()}
    # A name with some facets inside the domain counts as inside: conditions there differ from those on a boundary.
    inside = {name for name, each in facets.items() if (mesh.f2t[1, each] >= 0).any()}
    for _ in range(refine):
        mesh, facets, subdomains = halved(mesh, facets, subdomains)
    with_facets(mesh)
    boundaries = {name: each for name, each in facets.items() if name not in inside}
    boundaries["all"] = mesh.boundary_facets()
    within = {name: each for name, each in facets.items() if name in inside}
    return Domain(mesh, boundaries, subdomains, within, dict(unusable or {}), curved=curved)
