"""Periodic boundaries: pairs of sides of a mesh whose facets are translates of each other and count as one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import skfem

from .cells import place_text

# Two nodes are partners if they are closer than this share of the shortest edge of the two sides.
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Seam:
    """Two sides of a mesh that count as one.

    Attributes:
        names: the names of the sides.
        facets: (2, k) the facets of the first side, and the partner of each on the second.
        shift: (dim,) the translation from the first side to the second.
    """

    names: tuple[str, str]
    facets: np.ndarray
    shift: np.ndarray


class MismatchError(ValueError):
    """Two sides that are no translates of each other."""


def seam(mesh: skfem.Mesh, names: tuple[str, str], first: np.ndarray, second: np.ndarray) -> Seam:
    """Pairs the facets of two sides.

    Raises:
        MismatchError: a node or a facet of one side has no partner on the other.
    """
    # Loaded here, because most solves do without it.
    from .mesh_names import facets_by_vertices

    vertices = [np.unique(mesh.facets[:, facets]) for facets in (first, second)]
    places = [mesh.p[:, those] for those in vertices]
    centres = [0.5 * (each.min(axis=1) + each.max(axis=1)) for each in places]
    shift = centres[1] - centres[0]
    tolerance = _TOLERANCE * _shortest_edge(mesh, np.concatenate([first, second]))
    partner = np.full(mesh.nvertices, -1)
    partner[vertices[0]] = vertices[1][_matched(places[0], places[1], shift, tolerance, names)]
    _matched(places[1], places[0], -shift, tolerance, names[::-1])
    facets = facets_by_vertices(mesh, partner[mesh.facets[:, first]].T)
    alone = ~np.isin(facets, second)
    if alone.any():
        where = place_text(mesh.p[:, mesh.facets[:, first[np.argmax(alone)]]].mean(axis=1))
        raise MismatchError(
            f"the nodes of {names[0]} and {names[1]} match, but the facet of {names[0]} at {where} has no partner: "
            "the two sides are cut into facets in different ways"
        )
    return Seam(names, np.stack([first, facets]), shift)


def _shortest_edge(mesh: skfem.Mesh, facets: np.ndarray) -> float:
    """The shortest distance between two vertices of the cells beside some facets."""
    corners = mesh.p[:, mesh.t[:, np.unique(mesh.f2t[0, facets])]]
    pairs = [(i, j) for i in range(len(mesh.t)) for j in range(i)]
    return float(min(np.linalg.norm(corners[:, i] - corners[:, j], axis=0).min() for i, j in pairs))


def _matched(
    these: np.ndarray, others: np.ndarray, shift: np.ndarray, tolerance: float, names: Sequence[str]
) -> np.ndarray:
    """The number of the partner of each of the points `these` (dim, m) among the points `others` (dim, n)."""
    # Loaded here, because it takes long and most solves do without it.
    from scipy.spatial import KDTree

    distances, found = KDTree(others.T).query((these + shift[:, None]).T)
    if (distances > tolerance).any():
        alone = int(np.argmax(distances > tolerance))
        raise MismatchError(
            f"the node of {names[0]} at {place_text(these[:, alone])} has no partner on {names[1]}, where one is "
            f"expected at {place_text(these[:, alone] + shift)}; the nearest is {distances[alone]:.3g} away"
        )
    return np.asarray(found)


def numbers_without_copies(pairs: Sequence[tuple[np.ndarray, np.ndarray]], size: int) -> np.ndarray:
    """(size,) new numbers in the order of the indices, the same for indices that pairs connect, also through others."""
    rows, columns = (np.concatenate([np.zeros(0, dtype=np.int64), *each]) for each in zip(*pairs, strict=True))
    graph = sp.coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(size, size))
    _, classes = sp.csgraph.connected_components(graph, directed=False)
    _, first, number = np.unique(classes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[number.reshape(-1)])


def node_pairs(seam: Seam, nodes: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of degrees of freedom on the two sides of a seam.

    Args:
        seam: the two sides.
        nodes: (dim, size) the points of all degrees of freedom.
        first: the degrees of freedom on the first side.
        second: those on the second side.
    """
    spread = float(np.ptp(nodes, axis=1).max())
    return first, second[_matched(nodes[:, first], nodes[:, second], seam.shift, spread, seam.names)]


def renumbered(dofs: skfem.Dofs, numbers: np.ndarray) -> skfem.Dofs:
    """Degrees of freedom with new numbers."""
    found = copy.copy(dofs)
    for name in ("nodal_dofs", "edge_dofs", "facet_dofs", "interior_dofs", "element_dofs"):
        old = np.asarray(getattr(dofs, name))
        setattr(found, name, numbers[old].astype(old.dtype))
    found.N = int(numbers.max()) + 1
    return found
