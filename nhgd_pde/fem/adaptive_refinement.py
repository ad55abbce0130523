"""Refinement of some cells of a mesh by bisection, without hanging nodes, that keeps the names of its parts.

A cell is cut at the midpoint of its longest edge, and so are all cells with an edge that has been cut in a neighbour
(M. C. Rivara, Int. J. Numer. Methods Eng. 20, 1984). One rule serves intervals, triangles and tetrahedra, and every new
cell knows the cell that it is a part of. scikit-fem's refinement of tetrahedra does not tell that, moves vertices by an
absolute length while it compares edges, and sets numpy's global random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from .cells import CELLS
from .facet_tables import with_facets
from .interpolation import SIMPLICES
from .mesh import Domain
from .seams import Seam

# An edge is the number of its first vertex times this, plus the number of its second one.
_BASE = 2**31
# Largest number of times that cells beside periodic sides are added to those that are refined.
_MOST_ROUNDS = 50


class NotRefinableError(ValueError):
    """A mesh of which single cells cannot be refined; the message begins with what was found."""


def check_refinable(domain: Domain) -> None:
    """Refuses meshes of which single cells cannot be refined.

    Raises:
        NotRefinableError: with the kind of cells that was found.
    """
    if domain.curved is not None:
        raise NotRefinableError("found curved cells of second order")
    if domain.cell not in SIMPLICES:
        raise NotRefinableError(f"found {CELLS[domain.cell].plural}")


def refined(domain: Domain, marked: np.ndarray, moved: Callable[[np.ndarray], np.ndarray] | None = None) -> Domain:
    """The mesh in which every marked cell has been bisected as often as it has dimensions, which halves its width.

    Args:
        domain: a mesh of intervals, triangles or tetrahedra. Its periodic sides are refined alike, and are no seams of
            the result.
        marked: the numbers of the cells to refine.
        moved: where new vertices of the boundary go, (dim, k) -> (dim, k): onto the circle of a disk.

    Returns:
        The refined mesh; a part of a named cell or facet has its names.

    Raises:
        NotRefinableError: the cells are of another kind, or two periodic sides cannot be refined alike.
    """
    check_refinable(domain)
    cut = _cut_alike(domain, np.asarray(marked))
    p = cut.p
    mesh = with_facets(type(domain.mesh)(p, cut.t))
    if moved is not None:
        outer = np.unique(mesh.facets[:, mesh.boundary_facets()])
        new = outer[outer >= domain.mesh.nvertices]
        p = p.copy()
        p[:, new] = moved(p[:, new])
        mesh = with_facets(type(mesh)(p, cut.t))
    source = cut.facets_of(mesh.t, mesh.t2f, mesh.facets)

    def parts(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.flatnonzero(np.isin(source, facets)) for name, facets in named.items()}

    return replace(
        domain.unglued,
        mesh=mesh,
        boundaries={**parts(domain.boundaries), "all": mesh.boundary_facets()},
        inside=parts(domain.inside),
        subdomains={name: np.flatnonzero(np.isin(cut.parents, cells)) for name, cells in domain.subdomains.items()},
    )


@dataclass(frozen=True)
class _Cut:
    """A mesh whose cells are cut.

    Attributes:
        p: (dim, vertices) coordinates; the vertices of the first mesh come first.
        t: (dim + 1, cells) the vertices of each cell.
        facets: (dim + 1, cells) the facet of the first mesh that the facet opposite to a vertex is a part of, or -1.
        parents: (cells,) the cell of the first mesh that a cell is a part of.
        depth: (cells,) how often that cell was cut to get this one.
    """

    p: np.ndarray
    t: np.ndarray
    facets: np.ndarray
    parents: np.ndarray
    depth: np.ndarray

    @classmethod
    def of(cls, domain: Domain) -> _Cut:
        mesh = domain.mesh
        cells = np.arange(mesh.nelements)
        t = np.asarray(mesh.t, dtype=np.int64)
        facets = np.empty_like(t)
        facets[_opposite(t, mesh.t2f, mesh.facets), cells] = mesh.t2f
        return cls(np.asarray(mesh.p), t, facets, cells, np.zeros_like(cells))

    def facets_of(self, t: np.ndarray, t2f: np.ndarray, facets: np.ndarray) -> np.ndarray:
        """(facets,) the facet of the first mesh that each facet of the cut mesh is a part of, or -1."""
        found = np.full(facets.shape[1], -1)
        found[t2f] = self.facets[_opposite(np.asarray(t), t2f, facets), np.arange(t.shape[1])]
        return found

    def bisected(self, chosen: np.ndarray) -> _Cut:
        """The mesh in which some cells are cut, and others until no edge is cut in one cell and whole in another."""
        p, t, facets, parents, depth = self.p, self.t.copy(), self.facets.copy(), self.parents, self.depth.copy()
        # The edges that have been cut, in increasing order, and their midpoints.
        edges, middles = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        while len(chosen):
            first, second, edge = _longest(p, t[:, chosen])
            new = np.setdiff1d(edge, edges)
            edges, order = np.unique(np.concatenate([edges, new]), return_index=True)
            middles = np.concatenate([middles, p.shape[1] + np.arange(len(new))])[order]
            p = np.hstack([p, 0.5 * (p[:, new // _BASE] + p[:, new % _BASE])])
            middle, columns = middles[np.searchsorted(edges, edge)], np.arange(len(chosen))
            halves, sides = [t[:, chosen], t[:, chosen]], [facets[:, chosen], facets[:, chosen]]
            # Each half keeps one end of the edge; its facet opposite to that end is new.
            for half, side, kept, lost in zip(halves, sides, (first, second), (second, first), strict=True):
                half[lost, columns] = middle
                side[kept, columns] = -1
            depth[chosen] += 1
            t[:, chosen], facets[:, chosen] = halves[0], sides[0]
            t, facets = np.hstack([t, halves[1]]), np.hstack([facets, sides[1]])
            parents, depth = (np.concatenate([each, each[chosen]]) for each in (parents, depth))
            chosen = np.flatnonzero(np.isin(_edges(t), edges).any(axis=0))
        order = np.argsort(t, axis=0)
        # scikit-fem sorts the vertices of triangles.
        t, facets = np.take_along_axis(t, order, axis=0), np.take_along_axis(facets, order, axis=0)
        return _Cut(p, t, facets, parents, depth)


def _cut_alike(domain: Domain, marked: np.ndarray) -> _Cut:
    """The mesh in which the marked cells are cut, with the same cuts on both sides of every seam."""
    for _ in range(_MOST_ROUNDS):
        cut = _cut(domain, marked)
        apart = [_unlike(domain, cut, seam) for seam in domain.seams]
        further = np.setdiff1d(np.concatenate([marked[:0], *apart]), marked)
        if not len(further):
            break
        marked = np.concatenate([marked, further])
    wrong = [seam.names for seam, cells in zip(domain.seams, apart, strict=True) if len(cells)]
    if wrong:
        raise NotRefinableError(f"found periodic sides that cannot be refined alike, {wrong[0][0]} and {wrong[0][1]}")
    return cut


def _cut(domain: Domain, marked: np.ndarray) -> _Cut:
    cut = _Cut.of(domain)
    for depth in range(1, domain.dim + 1):
        cut = cut.bisected(np.flatnonzero(np.isin(cut.parents, marked) & (cut.depth < depth)))
    return cut


def _unlike(domain: Domain, cut: _Cut, seam: Seam) -> np.ndarray:
    """The cells beside those facets of a seam that are in fewer parts than their partners."""
    kept = cut.facets[cut.facets >= 0]
    parts = np.bincount(kept, minlength=domain.mesh.nfacets)[seam.facets]
    fewer = seam.facets[parts < parts[::-1]]
    return np.asarray(domain.mesh.f2t[0, fewer], dtype=int)


def _opposite(t: np.ndarray, t2f: np.ndarray, facets: np.ndarray) -> np.ndarray:
    """(facets of a cell, cells) the number in its cell of the vertex that is not on a facet."""
    # Sums of vertex numbers differ by the one that is missing.
    missing = t.sum(axis=0) - facets[:, t2f].sum(axis=0)
    return np.asarray((t[None] == missing[:, None]).argmax(axis=1))


def _edges(t: np.ndarray) -> np.ndarray:
    """(edges of a cell, cells) the edges of cells as numbers."""
    pairs = [np.sort(t[list(pair)], axis=0) for pair in combinations(range(len(t)), 2)]
    return np.stack([low * _BASE + high for low, high in pairs])


def _longest(p: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two vertices of the longest edge of each cell by their numbers in it, and that edge.

    Of edges with the same length the one with the greatest number counts as longer: in such an order, the same for all
    cells, cutting ends.
    """
    edges = _edges(t)
    squares = ((p[:, edges // _BASE] - p[:, edges % _BASE]) ** 2).sum(axis=0)
    longest = np.where(squares == squares.max(axis=0), edges, -1).argmax(axis=0)
    first, second = np.array(list(combinations(range(len(t)), 2))).T
    return first[longest], second[longest], edges[longest, np.arange(t.shape[1])]


def smallest_angle(domain: Domain) -> float:
    """The smallest angle in degrees between two facets of a cell of triangles or tetrahedra; 180 for intervals."""
    if domain.dim == 1:
        return 180.0
    corners = domain.mesh.p[:, domain.mesh.t]
    sides = (corners[:, 1:] - corners[:, :1]).transpose(2, 0, 1)
    # The gradients of the barycentric coordinates are normal to the facets.
    rest = np.linalg.inv(sides)
    normals = np.concatenate([-rest.sum(axis=1, keepdims=True), rest], axis=1)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    cosines = [-(normals[:, i] * normals[:, j]).sum(axis=1) for i, j in combinations(range(domain.dim + 1), 2)]
    return float(np.degrees(np.arccos(np.clip(np.max(cosines), -1.0, 1.0))))
