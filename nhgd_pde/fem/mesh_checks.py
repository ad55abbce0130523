"""Checks that the cells of a mesh fit together: orientations are right, and no facet has more than two cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import skfem

from .boundary_checks import (
    Outline,
    crossing_edges,
    first_pair,
    normals_of,
    overlap,
    same_place,
    split_vertices,
    touched_facets,
    vertices_in_facets,
)
from .cell_overlaps import overlapping_pair
from .cells import CELLS, place_text
from .gaps import vertex_over_facet

# The end of messages on cracks says how to join cells, or to allow cracks in the problem file.
_HINT = "join them in the mesh, or, if it is meant to be cut there, add `cracks: allowed` to the section mesh"
# Files in which no two cells share a vertex have very many double vertices. If there are more than this number, they
# are reported at once, without the search for overlapping cells, which would take long.
_MANY = 10_000


@dataclass(frozen=True)
class MeshOfFile:
    """A mesh as it was read from a file.

    Attributes:
        mesh: the mesh of scikit-fem.
        kind: the kind of its cells, a key of `CELLS`.
        places: (vertices, d) the coordinates in the file; those of the mesh are projections in fewer dimensions if the
            mesh is flat.
        numbers: (vertices,) the number of each vertex in the file, from 0.
        precision: relative rounding of the coordinates.
        step: distance between neighbouring coordinates that the file can hold, zero where this is not known.
    """

    mesh: skfem.Mesh
    kind: str
    places: np.ndarray
    numbers: np.ndarray
    precision: float
    step: float

    def between(self, vertices: np.ndarray) -> str:
        """The places of the vertices of a facet or cell, for messages."""
        return " ".join(place_text(place) for place in self.places[vertices])

    def at(self, vertex: int | np.ndarray) -> str:
        """The number and the place of a vertex, for messages."""
        return f"vertex {self.numbers[vertex]} (counted from 0) at {place_text(self.places[vertex])}"

    def numbered(self, vertices: np.ndarray) -> str:
        """The numbers of some vertices, for messages."""
        plural = "vertices" if len(vertices) > 1 else "vertex"
        return f"with the {plural} {', '.join(str(number) for number in self.numbers[vertices])} (counted from 0)"


def unsound_cells(corners: np.ndarray, kind: str) -> str | None:
    """A sentence on a cell that is flat up to rounding or folded, given corners (cells, vertices, dim); or None.

    The map from the reference cell must keep its orientation. Its determinant is constant on simplices and affine on
    quadrilaterals, so that its sign at the corners decides. On hexahedra it is quadratic in each coordinate, and is
    checked at the nodes of the triquadratic element.
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
            return f"has a {name} {kind} ({reason}) at ({centre})"
    return None


def misfit(read: MeshOfFile, cracks: bool) -> str | None:
    """A sentence on cells that do not fit together and their place; None where all cells fit.

    Cells must not overlap. Neighbours must share whole facets and their vertices. If `cracks` says that the mesh may be
    cut, two vertices may stand at one place, and facets may touch without being shared.

    If the two cells that share a facet lie on different sides of it, the number of cells that cover a point changes
    only at facets of the boundary. Hence all other faults are found at the boundary, which is small: its facets must
    not cross, and exactly one cell must cover a point beside each facet. This number can change along a facet that
    another facet touches without sharing it: where this is allowed, the cells there are compared in pairs.
    """
    sentence = _same_side(read)
    if sentence is not None or read.mesh.dim() == 1:
        return sentence or _intervals(read, cracks)
    outline = Outline.of(read.mesh, read.precision, read.step)
    pairs = outline.facets[:0, :2] if cracks else split_vertices(outline)
    if len(pairs) > _MANY:
        return _standing_twice(read, pairs)
    where = overlap(outline)
    if where is not None:
        return _overlapping(read, outline.facets[where])
    if len(pairs):
        return _standing_twice(read, pairs)
    if not cracks:
        return _unmatched(read, outline)
    beside = np.unique(read.mesh.f2t[0, read.mesh.boundary_facets()[touched_facets(outline)]])
    cells = overlapping_pair(read.mesh, beside, read.precision, read.step) if len(beside) else None
    return None if cells is None else _overlapping_cells(read, *cells)


def _overlapping(read: MeshOfFile, vertices: np.ndarray, how: str = "") -> str:
    """A sentence on cells that overlap at a facet with given vertices; `how` is its end."""
    return f"has {read.kind} cells that overlap at {place_text(read.places[vertices].mean(axis=0))}{how}"


def _overlapping_cells(read: MeshOfFile, one: int, other: int) -> str:
    """A sentence on two cells that overlap, with the centre of the box that they share."""
    corners = read.places[read.mesh.t[:, [one, other]]]
    low, high = corners.min(axis=0).max(axis=0), corners.max(axis=0).min(axis=0)
    return f"has {read.kind} cells that overlap at {place_text(0.5 * (low + high))}"


def _same_side(read: MeshOfFile) -> str | None:
    """A sentence on two cells on the same side of a facet, or on three cells that share a facet; None without any."""
    mesh = read.mesh
    sharing = np.bincount(mesh.t2f.reshape(-1), minlength=mesh.nfacets)
    crowded = np.flatnonzero(sharing > 2)
    if len(crowded):
        vertices = mesh.facets[:, crowded[0]]
        return _overlapping(read, vertices, f": three of them share the facet {read.numbered(vertices)}")
    inner = np.flatnonzero(mesh.f2t[1] >= 0)
    local = np.argmax(mesh.t2f[:, mesh.f2t[0, inner]] == inner, axis=0)
    around = np.array(mesh.elem.refdom.facets)[local].T
    facets = mesh.p.T[mesh.t[around, mesh.f2t[0, inner]].T]
    middle, normal, centres = facets.mean(axis=1), normals_of(facets), mesh.p.T[mesh.t].mean(axis=0)
    first, second = (((centres[cells] - middle) * normal).sum(axis=1) for cells in mesh.f2t[:, inner])
    folded = np.flatnonzero((first > 0.0) == (second > 0.0))
    if not len(folded):
        return None
    vertices = mesh.facets[:, inner[folded[0]]]
    how = f": two of them lie on the same side of the facet {read.numbered(vertices)}; a vertex may be out of place"
    return _overlapping(read, vertices, how)


def _unmatched(read: MeshOfFile, outline: Outline) -> str | None:
    """A sentence on facets that touch without being shared; None without any."""
    if (found := first_pair(vertices_in_facets(outline))) is not None:
        vertex, facet = found
        which = f"{read.at(vertex)} lies on the facet {read.between(outline.facets[facet])}"
        return _apart(f"{which} of another {read.kind}, which does not have it (a hanging node)")
    if (edges := first_pair(crossing_edges(outline))) is not None:
        return _apart(f"their edges {read.between(edges[0])} and {read.between(edges[1])} cross")
    gap = vertex_over_facet(outline)
    if gap is None:
        return None
    where = f"between the facet {read.between(outline.facets[gap[1]])} and {read.at(gap[0])}"
    return _apart(f"there is a thin gap {where} (a hanging node on a curved interface?)")


def _apart(what: str) -> str:
    return f"has cells that do not fit together: {what}; {_HINT}"


def _standing_twice(read: MeshOfFile, pairs: np.ndarray) -> str:
    """A sentence on pairs of vertices (k, 2) that stand at the same place."""
    one, other = pairs[0]
    numbers = f"{read.numbers[one]} and {read.numbers[other]} (counted from 0)"
    rest = "" if len(pairs) == 1 else f", and {len(pairs) - 1:,} more pairs elsewhere"
    return _apart(f"vertices {numbers} stand at the same place, {place_text(read.places[one])}{rest}")


def _intervals(read: MeshOfFile, cracks: bool) -> str | None:
    """A sentence on intervals that overlap, or on two vertices at one place, in a mesh of a line; None without any."""
    x = read.mesh.p[0]
    cells = np.take_along_axis(read.mesh.t, np.argsort(x[read.mesh.t], axis=0), axis=0)
    cells = cells[:, np.argsort(x[cells[0]], kind="stable")]
    left, right = x[cells]
    gap, shorter = left[1:] - right[:-1], np.minimum(right - left, np.roll(right - left, -1))[:-1]
    tolerance = same_place(x[:, None], shorter, read.precision, read.step)
    over = np.flatnonzero(gap < -tolerance)
    if len(over):
        return _overlapping(read, cells[:, over[0] + 1])
    pairs = np.stack([cells[1, :-1], cells[0, 1:]], axis=1)
    twice = (np.abs(gap) <= tolerance) & (pairs[:, 0] != pairs[:, 1])
    return _standing_twice(read, pairs[twice]) if twice.any() and not cracks else None
