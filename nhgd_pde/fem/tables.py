"""Tables of the basis functions of scikit-fem at quadrature points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import skfem
import torch
from torch import Tensor

from .evaluation_operator import EvaluationOperator
from .quadrature_points import Quadrature, given_quadrature


def cell_evaluation(basis: skfem.CellBasis, device: torch.device) -> EvaluationOperator:
    """The values and gradients of a scalar scikit-fem basis on all cells.

    Values are those on the reference cell, and gradients follow from the inverse of the map of the cells, as scikit-fem
    computes them; its own tables take four times the memory on tetrahedra.
    """
    mesh, points = basis.mesh, np.asarray(basis.X)
    reference = (basis.elem.lbasis(points, i) for i in range(basis.Nbfun))
    slopes = np.stack([np.broadcast_to(gradient, points.shape) for _, gradient in reference])
    if isinstance(basis.mapping, skfem.MappingAffine):
        # The map of the mesh itself keeps its matrices, which are not needed again.
        own = skfem.MappingAffine(mesh)
        gradients = _affine_gradients(slopes, own.invA, device)
        weights = np.abs(own.detA)[:, None] * basis.W
    else:
        inverse = basis.mapping.invDF(points)
        gradients = tuple(
            packed_table(_on(device, np.einsum("ieq,aiq->eqa", inverse[:, axis], slopes)))
            for axis in range(len(points))
        )
        weights = basis.dx
    values = _cell_values(basis, weights, device)
    return replace(values, tables=(*values.tables, *gradients))


def cell_values(basis: skfem.CellBasis, device: torch.device) -> EvaluationOperator:
    """The values of a scalar scikit-fem basis on all cells, without gradients."""
    if isinstance(basis.mapping, skfem.MappingAffine):
        return _cell_values(basis, np.abs(skfem.MappingAffine(basis.mesh).detA)[:, None] * basis.W, device)
    return _cell_values(basis, basis.dx, device)


def values_alone(functions: EvaluationOperator) -> EvaluationOperator:
    """The functions without their gradients."""
    return replace(functions, tables=functions.tables[:1], parts=functions.parts[:1])


def _cell_values(basis: skfem.CellBasis, weights: np.ndarray, device: torch.device) -> EvaluationOperator:
    mesh, points = basis.mesh, np.asarray(basis.X)
    reference = (basis.elem.lbasis(points, i)[0] for i in range(basis.Nbfun))
    values = np.stack([np.broadcast_to(value, points.shape[1:]) for value in reference], axis=-1)
    # The map of a cell of second order has more nodes than the cell has corners.
    nodes = mesh.t if len(mesh.elem.doflocs) == len(mesh.t) else np.asarray(mesh.dofs.element_dofs)
    nodal = (mesh.elem().lbasis(points, i)[0] for i in range(len(nodes)))
    shape = np.stack([np.broadcast_to(value, points.shape[1:]) for value in nodal])

    def places(first: int, end: int) -> Tensor:
        corners = nodes[:, first:end]
        return _on(device, np.stack([row[corners].T @ shape for row in mesh.p]))

    table = _on(device, values[None]).expand(mesh.nelements, -1, -1)
    quadrature = Quadrature(_on(device, weights), len(points), places)
    dofs = np.asarray(basis.element_dofs).T
    return EvaluationOperator((table,), dofs, int(basis.N), quadrature)


def _affine_gradients(slopes: np.ndarray, inverse: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
    """The partial derivatives (elements, points, functions) of functions with given derivatives on the reference cell.

    Args:
        slopes: (functions, dim, points).
        inverse: (dim, dim, elements) the inverse of the Jacobian of every cell.
    """
    if (slopes == slopes[..., :1]).all():
        slopes = slopes[..., :1]
    functions, dim, points = slopes.shape
    rows = slopes.swapaxes(1, 2).reshape(-1, dim)
    found = []
    for axis in range(dim):
        # Elements come last in memory, so that one number of all elements is worked on at once.
        table = (rows @ inverse[:, axis]).reshape(functions, points, -1)
        found.append(torch.from_numpy(table).to(device).permute(2, 1, 0))
    return tuple(found)


def facet_evaluation(basis: skfem.FacetBasis, device: torch.device) -> EvaluationOperator:
    """The values and gradients of a scalar scikit-fem basis on facets."""
    fields, x = [field[0] for field in basis.basis], np.asarray(basis.global_coordinates())
    return _tabulated(fields, basis.element_dofs, int(basis.N), x, basis.dx, device)


def tangential(on_facets: EvaluationOperator, normals: Tensor) -> EvaluationOperator:
    """Functions with their gradients projected onto the facets, given unit normals (dim, facets, points)."""
    value, *gradient = on_facets.tables
    across = torch.stack([n[..., None] * table for n, table in zip(normals, gradient, strict=True)]).sum(0)
    along = [table - n[..., None] * across for n, table in zip(normals, gradient, strict=True)]
    return replace(on_facets, tables=(value, *along))


def point_evaluation(
    basis: skfem.CellBasis, cells: np.ndarray, x: np.ndarray, device: torch.device
) -> EvaluationOperator:
    """The functions of a basis at points x (dim, k), one in each of k cells; every point has the weight one."""
    local = basis.mapping.invF(x[:, :, None], tind=cells)
    fields = [basis.elem.gbasis(basis.mapping, local, i, tind=cells)[0] for i in range(basis.Nbfun)]
    dofs = np.asarray(basis.element_dofs)[:, cells]
    return _tabulated(fields, dofs, int(basis.N), x[:, :, None], np.ones((len(cells), 1)), device)


def _tabulated(
    fields: list[skfem.DiscreteField],
    dofs: np.ndarray,
    size: int,
    x: np.ndarray,
    weights: np.ndarray,
    device: torch.device,
) -> EvaluationOperator:
    """Functions with given values and gradients at points x (dim, elements, points), and dofs (functions, elements)."""
    components = [[np.asarray(field) for field in fields]]
    components += [[field.grad[axis] for field in fields] for axis in range(len(x))]
    tables = [np.stack([np.broadcast_to(each, weights.shape) for each in one], axis=-1) for one in components]
    quadrature = given_quadrature(_on(device, x), _on(device, weights))
    packed = tuple(packed_table(_on(device, table)) for table in tables)
    return EvaluationOperator(packed, np.ascontiguousarray(dofs.T), size, quadrature)


def _on(device: torch.device, values: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), device=device)


def packed_table(table: Tensor) -> Tensor:
    """A table (elements, points, functions), reduced to one point where it is constant on each element."""
    return table[:, :1].contiguous() if (table == table[:, :1]).all() else table
