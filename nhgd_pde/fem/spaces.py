"""Scalar finite element spaces on a domain."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import skfem
import torch

from .deferred_basis import DeferredBasis
from .evaluation_operator import EvaluationOperator
from .mesh import Domain
from .tables import cell_evaluation, cell_values, facet_evaluation, point_evaluation, tangential, values_alone

# scikit-fem's elements of the degrees 0, 1 and 2 on each kind of cell.
_ELEMENTS = {
    "line": (skfem.ElementLineP0, skfem.ElementLineP1, skfem.ElementLineP2),
    "triangle": (skfem.ElementTriP0, skfem.ElementTriP1, skfem.ElementTriP2),
    "quad": (skfem.ElementQuad0, skfem.ElementQuad1, skfem.ElementQuad2),
    "tetra": (skfem.ElementTetP0, skfem.ElementTetP1, skfem.ElementTetP2),
    "hexahedron": (skfem.ElementHex0, skfem.ElementHex1, skfem.ElementHex2),
}


@dataclass(frozen=True, eq=False)
class Space:
    """A finite element space and its basis at quadrature points.

    Attributes:
        domain: the mesh and the names of its parts.
        element: P0, P1 or P2; on quadrilaterals and hexahedra these are Q0, Q1 and Q2, of that degree in every
            coordinate.
        basis: the scikit-fem basis on the cells.
        device: the device of the evaluation operators.
        unglued: the space on the mesh without seams; None where there are none, and the space itself is that.
        numbers: (nodes of the mesh,) the degree of freedom of each degree of freedom of `unglued`.
    """

    domain: Domain
    element: str
    basis: skfem.CellBasis
    device: torch.device
    unglued: Space | None = None
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))

    @property
    def size(self) -> int:
        return int(self.basis.N)

    @property
    def on_mesh(self) -> Space:
        """The space of the functions that may have different values on the two sides of a seam."""
        return self if self.unglued is None else self.unglued

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Coefficients (..., size) -> (..., on_mesh.size), those of the same function in the space `on_mesh`."""
        return values if self.unglued is None else values[..., self.numbers]

    @cached_property
    def representatives(self) -> np.ndarray:
        """(size,) for each degree of freedom the first one of the space `on_mesh` that it stands for."""
        return np.arange(self.size) if self.unglued is None else np.unique(self.numbers, return_index=True)[1]

    @property
    def nodes(self) -> np.ndarray:
        """(dim, size) the point of every degree of freedom; on a seam, that on one of its sides."""
        if self.unglued is not None:
            return self.unglued.nodes[:, self.representatives]
        if self.element == "P0":
            return np.asarray(self.domain.mesh.p[:, self.domain.mesh.t].mean(axis=1))
        return np.asarray(self.basis.doflocs)

    @cached_property
    def cells(self) -> EvaluationOperator:
        """Evaluation on the cells."""
        return cell_evaluation(self.basis, self.device)

    def facets(self, facets: np.ndarray, like: Space | None = None) -> EvaluationOperator:
        """Evaluation on some facets, by default at own points, else at those of another space for products of both."""
        return facet_evaluation(self._facet_basis(facets, like), self.device)

    def traces(self, facets: np.ndarray, like: Space | None = None) -> EvaluationOperator:
        """Evaluation on some facets with tangential gradients, at points as in `facets`."""
        basis = self._facet_basis(facets, like)
        normals = torch.as_tensor(np.ascontiguousarray(basis.normals), device=self.device)
        return tangential(facet_evaluation(basis, self.device), normals)

    def _facet_basis(self, facets: np.ndarray, like: Space | None) -> skfem.FacetBasis:
        """The basis on some facets, by default with points that are exact for products of two of its functions."""
        return self._facet_basis_of_order(facets, 2 * _degree(self.element if like is None else like.element))

    def _facet_basis_of_order(self, facets: np.ndarray, order: int) -> skfem.FacetBasis:
        mesh = self.domain.geometry
        return skfem.FacetBasis(
            mesh, self.basis.elem, facets=facets, intorder=order, dofs=self.basis.dofs, disable_doflocs=True
        )

    def finer_values(self, facets: np.ndarray | None = None) -> EvaluationOperator:
        """The values of the functions, without gradients, at more points of the cells or of some facets.

        The rule is exact for products of two polynomials of the degree of the space plus one.
        """
        degree = _degree(self.element) + 1
        if facets is not None:
            return values_alone(facet_evaluation(self._facet_basis_of_order(facets, 2 * degree), self.device))
        order = _order(self.domain.cell, degree)
        basis = DeferredBasis(self.domain.geometry, self.basis.elem, intorder=order, dofs=self.basis.dofs)
        return cell_values(basis, self.device)

    def cells_at(self, x: np.ndarray) -> np.ndarray | None:
        """(k,) the cells of points (dim, k); None where a point is outside."""
        mesh = self.domain.mesh
        if self.domain.curved is not None:
            from .second_order import locate_curved

            cells = locate_curved(self.domain.curved, x)[0]
            return None if (cells < 0).any() else cells
        low, high = mesh.p.min(axis=1, keepdims=True), mesh.p.max(axis=1, keepdims=True)
        if ((x < low) | (x > high)).any():
            return None
        try:
            # Without names: those of boundaries are looked up facet by facet where quadrilaterals are cut.
            return np.asarray(type(mesh)(mesh.doflocs, mesh.t).element_finder()(*x))
        except ValueError:
            return None

    def points(self, x: np.ndarray) -> EvaluationOperator:
        """Evaluation at points (dim, k) of the mesh, each with the weight one."""
        cells = self.cells_at(x)
        assert cells is not None
        return point_evaluation(self.basis, cells, x, self.device)

    def facet_dofs(self, facets: np.ndarray) -> np.ndarray:
        """Indices of the degrees of freedom on some facets, sorted."""
        mesh, dofs = self.domain.mesh, self.basis.element_dofs
        cells = mesh.f2t[0, facets]
        side = np.argmax(mesh.t2f[:, cells] == facets, axis=0)
        found = [dofs[functions][:, cells[side == k]].reshape(-1) for k, functions in enumerate(self._on_sides)]
        return np.unique(np.concatenate(found))

    @cached_property
    def _on_sides(self) -> list[np.ndarray]:
        """For each facet of the reference cell the functions whose nodes lie on it."""
        elem, domain = self.basis.elem, self.domain.mesh.elem.refdom
        corners = np.array(domain.p).T
        nodes = np.asarray(elem.doflocs)
        found = []
        for facet in domain.facets:
            start, *rest = corners[np.atleast_1d(facet)]
            span = np.array([point - start for point in rest]).reshape(-1, corners.shape[1])
            offsets = nodes - start
            away = offsets - offsets @ np.linalg.pinv(span) @ span if len(span) else offsets
            found.append(np.flatnonzero(np.abs(away).max(axis=1) < 1e-9))
        return found

    def cell_dofs(self, cells: np.ndarray) -> np.ndarray:
        """Sorted indices of the degrees of freedom of these cells."""
        return np.unique(self.basis.element_dofs[:, cells])


def linear_functions(space: Space) -> tuple[sp.csr_matrix, np.ndarray]:
    """The functions of degree one in a Lagrange space: coefficients (size, vertices), and the dof of each vertex.

    Vertices on the two sides of a seam count as one.
    """
    mesh, elem = space.domain.mesh, space.basis.elem
    lowest = _ELEMENTS[space.domain.cell][1]()
    values = np.stack([lowest.lbasis(elem.doflocs.T, k)[0] for k in range(len(lowest.doflocs))], axis=1)
    # Vertices are numbered by the order of their degrees of freedom.
    of_vertex, vertex = np.unique(np.asarray(space.basis.nodal_dofs[0]), return_inverse=True)
    dofs, corners = np.asarray(space.basis.element_dofs), vertex.reshape(-1)[mesh.t]
    # Every cell at a node gives the same coefficients, so that one of them is taken.
    _, first = np.unique(dofs, return_index=True)
    local, cell = np.unravel_index(first, dofs.shape)
    rows = np.repeat(np.arange(space.size), values.shape[1])
    entries = values[local]
    matrix = sp.csr_matrix((entries.reshape(-1), (rows, corners[:, cell].T.reshape(-1))))
    matrix.eliminate_zeros()
    return matrix, of_vertex


def _degree(element: str) -> int:
    return int(element[1:])


def _order(cell: str, degree: int) -> int:
    """The order of a rule that is exact for products of two polynomials of a degree.

    On quadrilaterals and hexahedra it holds in each coordinate. scikit-fem's rule of order 4 on tetrahedra has negative
    weights, with which a mass matrix has no root, and those of order 5 to 7 are exact for one degree less.
    """
    return 2 * degree + 1 if cell == "tetra" and degree > 1 else 2 * degree


def space(domain: Domain, element: str, device: torch.device, like: Space | None = None) -> Space:
    """A space on a domain, with the quadrature points of the space `like` if products of both are integrated."""
    elem = _ELEMENTS[domain.cell][_degree(element)]()
    if like is None:
        basis = DeferredBasis(domain.geometry, elem, intorder=_order(domain.cell, _degree(element)))
    else:
        basis = DeferredBasis(domain.geometry, elem, quadrature=like.basis.quadrature)
    found = Space(domain, element, basis, device)
    return _glued(found) if domain.seams and element != "P0" else found


def _glued(space: Space) -> Space:
    """The space of the functions that have the same values on the two sides of every seam."""
    # Loaded here, because most solves do without it.
    from .seams import node_pairs, numbers_without_copies, renumbered

    pairs = [
        node_pairs(seam, space.nodes, *(space.facet_dofs(facets) for facets in seam.facets))
        for seam in space.domain.seams
    ]
    numbers = numbers_without_copies(pairs, space.size)
    basis, unglued = space.basis, replace(space, domain=space.domain.unglued)
    dofs = renumbered(basis.dofs, numbers)
    glued = DeferredBasis(basis.mesh, basis.elem, quadrature=basis.quadrature, dofs=dofs)
    return replace(space, basis=glued, unglued=unglued, numbers=numbers)
