"""scikit-fem's basis on the cells of a mesh, whose tables are made when they are read."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import skfem
from skfem.assembly.basis.abstract_basis import AbstractBasis


class DeferredBasis(skfem.CellBasis):
    """A `CellBasis` on all cells without its tables until they are read, and with exact points of the nodes.

    Its tables of gradients would take most of the memory of a large mesh, and are read on quadrilaterals and
    hexahedra only.

    Args:
        mesh: the mesh.
        elem: a scalar element of Lagrange.
        intorder: the order of the quadrature rule, if `quadrature` is not given.
        quadrature: the points and weights of the reference cell.
        dofs: the numbers of the degrees of freedom; by default those of scikit-fem.
    """

    def __init__(
        self,
        mesh: skfem.Mesh,
        elem: skfem.Element,
        intorder: int | None = None,
        quadrature: tuple[np.ndarray, np.ndarray] | None = None,
        dofs: skfem.Dofs | None = None,
    ) -> None:
        AbstractBasis.__init__(self, mesh, elem, None, intorder, quadrature, mesh.refdom, dofs, disable_doflocs=True)
        self.tind, self.nelems = None, mesh.nelements

    @cached_property
    def basis(self) -> list[tuple[skfem.DiscreteField, ...]]:
        return [self.elem.gbasis(self.mapping, self.X, i) for i in range(self.Nbfun)]

    @cached_property
    def dx(self) -> np.ndarray:
        return np.abs(self.mapping.detDF(self.X)) * np.broadcast_to(self.W, (self.nelems, self.W.shape[-1]))

    @cached_property
    def doflocs(self) -> np.ndarray:
        """(dim, N) the points of the degrees of freedom."""
        if self.mesh.nvertices == self.N and self.elem.nodal_dofs == 1:
            return np.asarray(self.mesh.p[:, : self.N])
        found = np.zeros((len(self.mesh.p), self.N))
        for reference, dofs in zip(np.asarray(self.elem.doflocs), self.element_dofs, strict=True):
            found[:, dofs] = self.mapping.F(reference[:, None])[..., 0]
        return found
