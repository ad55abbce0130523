"""Second derivatives of basis functions, which strong residuals need, as a further field of a space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import skfem
import torch

from .evaluation_operator import EvaluationOperator
from .tables import packed_table


def second_derivatives(basis: skfem.CellBasis, factors: np.ndarray, step: float = 2.0**-10) -> np.ndarray:
    """sum_ij factors_ij d2 phi / dx_i dx_j at the quadrature points, (elements, points, functions).

    Where the map of a cell is affine, gradients are polynomials of degree two at most along each reference coordinate,
    so that central differences are exact up to rounding. On other cells their errors are of order step^2.

    Args:
        basis: the basis of a scalar space.
        factors: (dim, dim, elements or 1, points or 1); with the identity the result is the Laplacian.
        step: step of the differences, in reference coordinates.
    """
    points, shape = np.asarray(basis.X), tuple(basis.dx.shape)
    found = np.zeros((*shape, basis.Nbfun))
    inverse = np.asarray(basis.mapping.invDF(points))
    for k in range(len(points)):
        # By the chain rule, row k of the inverse Jacobian is the factor of the derivative along reference coordinate k.
        weights = np.einsum("ijeq,jeq->ieq", factors, inverse[k])
        move = np.zeros_like(points)
        move[k] = step
        for a in range(basis.Nbfun):
            ends = [basis.elem.gbasis(basis.mapping, points + sign * move, a)[0].grad for sign in (1.0, -1.0)]
            found[..., a] += ((ends[0] - ends[1]) / (2.0 * step) * weights).sum(axis=0)
    return found


def with_second_derivatives(cells: EvaluationOperator, table: np.ndarray) -> EvaluationOperator:
    """The functions of a scalar space with a second field beside them, made of the same functions.

    Its value is a combination of their second derivatives, (elements, points, functions), and its gradient is zero.
    """
    extra = packed_table(torch.as_tensor(np.ascontiguousarray(table), device=cells.quadrature.weights.device))
    zero = torch.zeros_like(cells.tables[0][:, :1]).expand(len(cells.dofs), 1, cells.dofs.shape[1])
    return replace(cells, tables=(*cells.tables, extra, *[zero] * (cells.components - 1)))
