"""Scalar finite element spaces on a domain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import skfem
import torch

from .evaluation import Evaluation, evaluation
from .mesh import Domain

_ELEMENTS = {
    ("P0", 1): skfem.ElementLineP0,
    ("P0", 2): skfem.ElementTriP0,
    ("P0", 3): skfem.ElementTetP0,
    ("P1", 1): skfem.ElementLineP1,
    ("P1", 2): skfem.ElementTriP1,
    ("P1", 3): skfem.ElementTetP1,
    ("P2", 1): skfem.ElementLineP2,
    ("P2", 2): skfem.ElementTriP2,
    ("P2", 3): skfem.ElementTetP2,
}


@dataclass(frozen=True, eq=False)
class Space:
    """A finite element space and its basis at quadrature points.

    Attributes:
        domain: the mesh and its names.
        element: P0, P1 or P2.
        basis: the scikit-fem basis on the cells.
        device: where evaluation operators live.
    """

    domain: Domain
    element: str
    basis: skfem.CellBasis
    device: torch.device

    @property
    def size(self) -> int:
        return int(self.basis.N)

    @property
    def nodes(self) -> np.ndarray:
        """(dim, size) the point of every degree of freedom."""
        if self.element == "P0":
            return np.asarray(self.domain.mesh.p[:, self.domain.mesh.t].mean(axis=1))
        return np.asarray(self.basis.doflocs)

    @cached_property
    def cells(self) -> Evaluation:
        """Evaluation on the cells."""
        return evaluation(self.basis, self.device)

    def facets(self, facets: np.ndarray, like: Space | None = None) -> Evaluation:
        """Evaluation on some facets, at the points of another space where products of both are integrated."""
        quadrature = None if like is None else like.facet_basis(facets).quadrature
        return self.on(self.facet_basis(facets, quadrature))

    def facet_basis(self, facets: np.ndarray, quadrature: tuple[np.ndarray, np.ndarray] | None = None) -> skfem.FacetBasis:
        """The basis on some facets, by default with points that are exact for products of two of its functions."""
        if quadrature is None:
            return skfem.FacetBasis(self.domain.mesh, self.basis.elem, facets=facets)
        return skfem.FacetBasis(self.domain.mesh, self.basis.elem, facets=facets, quadrature=quadrature)

    def on(self, basis: skfem.AbstractBasis) -> Evaluation:
        """Evaluation at the points of a basis of this space."""
        return evaluation(basis, self.device)

    def facet_dofs(self, facets: np.ndarray) -> np.ndarray:
        """Indices of the degrees of freedom on some facets, sorted."""
        return np.sort(np.asarray(self.basis.get_dofs(facets).all()))

    def cell_dofs(self, cells: np.ndarray) -> np.ndarray:
        """Indices of the degrees of freedom whose functions live on some of these cells, sorted."""
        return np.unique(self.basis.element_dofs[:, cells])


def space(domain: Domain, element: str, device: torch.device, like: Space | None = None) -> Space:
    """A space on a domain, with the quadrature points of another where products of both are integrated."""
    elem = _ELEMENTS[element, domain.dim]()
    if like is None:
        # Exact for products of two functions of the space. On tetrahedra the rule of order 4 has negative
        # weights, with which a mass matrix has no root.
        order = 2 * elem.maxdeg
        basis = skfem.Basis(domain.mesh, elem, intorder=5 if domain.dim == 3 and order == 4 else order)
    else:
        basis = skfem.Basis(domain.mesh, elem, quadrature=like.basis.quadrature)
    return Space(domain, element, basis, device)
