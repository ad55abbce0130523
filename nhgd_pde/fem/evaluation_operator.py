"""Evaluation operators: the basis functions of a space, and their gradients, at all quadrature points.

Every integral of the package is E^T W F(E u): E evaluates, F acts point by point, W are quadrature weights, and E^T
tests (the decomposition of libCEED and MFEM, arXiv 1911.09220). E is stored as small dense tables of the elements, from
which products and matrices are computed; `matrix` exports E as one sparse matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import skfem
import torch
from torch import Tensor

from ..linalg.sparse import ScenarioMatrix, SparseMatrix
from .pattern import Blocks, Pattern


@dataclass(frozen=True)
class Quadrature:
    """Quadrature points x (dim, elements, points) and weights (elements, points) that include the Jacobian."""

    x: Tensor
    weights: Tensor

    @property
    def points(self) -> int:
        return self.weights.numel()

    @property
    def flat(self) -> Tensor:
        """(dim, P) the points, element by element."""
        return self.x.reshape(self.x.shape[0], -1)


@dataclass(frozen=True, eq=False)
class EvaluationOperator:
    """The functions of a space at quadrature points.

    A space of several fields has the functions of the fields side by side; see `stacked`.

    Attributes:
        tables: one (elements, points, functions) table for each component: the value, then the partial derivatives.
            A component that is constant on each element has a table with one point.
        dofs: (elements, functions) column of each function; -1 where the function is left out.
        size: number of columns.
        quadrature: the quadrature points and weights.
        parts: for each component, the functions that it consists of; empty if these are all functions.
    """

    tables: tuple[Tensor, ...]
    dofs: np.ndarray
    size: int
    quadrature: Quadrature
    parts: tuple[slice, ...] = ()

    @property
    def components(self) -> int:
        return len(self.tables)

    @property
    def stride(self) -> int:
        """The number of components of one field: its value and its partial derivatives."""
        return 1 + self.quadrature.x.shape[0]

    @property
    def fields(self) -> int:
        return self.components // self.stride

    @cached_property
    def _parts(self) -> tuple[slice, ...]:
        return self.parts or (slice(0, self.dofs.shape[1]),) * self.components

    def columns(self, kept: np.ndarray) -> EvaluationOperator:
        """The same functions with only the columns `kept` (indices), renumbered."""
        if len(kept) == self.size:
            return self
        number = np.full(self.size + 1, -1)
        number[kept] = np.arange(len(kept))
        return replace(self, dofs=number[self.dofs], size=len(kept))

    def shifted(self, first: int, size: int) -> EvaluationOperator:
        """The same functions as the columns from `first` on of a space with `size` columns."""
        return replace(self, dofs=np.where(self.dofs < 0, -1, self.dofs + first), size=size)

    @cached_property
    def matrix(self) -> SparseMatrix:
        """E, rows ordered (component, element, point)."""
        points = self.quadrature.weights.shape[1]
        rows = [
            self._rows(table.expand(-1, points, -1), part) for table, part in zip(self.tables, self._parts, strict=True)
        ]
        return SparseMatrix(sp.vstack(rows, format="csr"), self.quadrature.weights.device)

    def _rows(self, table: Tensor, part: slice) -> sp.csr_matrix:
        """A table (elements, points, functions) as a matrix (elements * points, size)."""
        data = table.cpu().numpy()
        columns = np.broadcast_to(self.dofs[:, None, part], data.shape)
        kept = columns >= 0
        pointers = np.concatenate([[0], np.cumsum(kept.sum(axis=-1).reshape(-1))])
        return sp.csr_matrix((data[kept], columns[kept], pointers), shape=(len(pointers) - 1, self.size))

    def evaluate(self, coefficients: Tensor) -> Tensor:
        """E u: (S, size) -> (components, S, elements * points)."""
        padded = torch.cat([coefficients, coefficients.new_zeros(coefficients.shape[0], 1)], dim=1)
        local = padded[:, self._gather]
        points = self.quadrature.weights.shape[1]
        values = [
            torch.einsum("eqa,sea->seq", table, local[:, :, part]).expand(-1, -1, points)
            for table, part in zip(self.tables, self._parts, strict=True)
        ]
        return torch.stack(values).reshape(self.components, coefficients.shape[0], -1)

    def test(self, densities: Tensor) -> Tensor:
        """Integrate densities F (components, S, elements * points) against functions: E^T W F, (S, size)."""
        weights = self.quadrature.weights
        scenarios = densities.shape[1]
        local = densities.new_zeros(scenarios, *self.dofs.shape)
        for table, part, density in zip(self.tables, self._parts, densities, strict=True):
            weighted = density.reshape(scenarios, *weights.shape) * weights
            if table.shape[1] == 1:
                weighted = weighted.sum(-1, keepdim=True)
            local[:, :, part] += torch.einsum("eqa,seq->sea", table, weighted)
        total = local.new_zeros(scenarios, self.size + 1)
        return total.index_add_(1, self._gather.reshape(-1), local.reshape(scenarios, -1))[:, : self.size]

    @cached_property
    def _gather(self) -> Tensor:
        """The columns as an index tensor, in which functions that are left out have the index `size`."""
        dofs = torch.from_numpy(self.dofs.astype(np.int64)).to(self.quadrature.weights.device)
        return torch.where(dofs < 0, self.size, dofs)

    @cached_property
    def _patterns(self) -> dict[int, Pattern]:
        return {}

    def assemble(self, trial: EvaluationOperator, blocks: Blocks, symmetric: bool = False) -> ScenarioMatrix:
        """The matrices int test_i blocks[i, j] trial_j (size, trial.size), one for each scenario."""
        if id(trial.dofs) not in self._patterns:
            self._patterns[id(trial.dofs)] = Pattern(self, trial)
        pattern = self._patterns[id(trial.dofs)]
        scenarios = max((len(coefficient) for coefficient in blocks.values()), default=1)
        if scenarios > 1:
            data = pattern.by_maps(blocks)
            if data is not None:
                return ScenarioMatrix(pattern.csr, data, (self.size, trial.size), symmetric)
        weights = self.quadrature.weights
        shape = (self.dofs.shape[1], trial.dofs.shape[1])
        local = weights.new_zeros(scenarios, weights.shape[0], *shape)
        for (i, j), coefficient in blocks.items():
            weighted = coefficient * weights
            left, right = self.tables[i], trial.tables[j]
            if left.shape[1] == right.shape[1] == 1:
                weighted = weighted.sum(-1, keepdim=True)
            local[:, :, self._parts[i], trial._parts[j]] += torch.einsum("eqa,seq,eqb->seab", left, weighted, right)
        return ScenarioMatrix(pattern.csr, pattern.scatter(local), (self.size, trial.size), symmetric)


def evaluation(basis: skfem.AbstractBasis, device: torch.device) -> EvaluationOperator:
    """The values and gradients of a scalar scikit-fem basis, on cells or on facets."""
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
    quadrature = Quadrature(_on(device, x), _on(device, weights))
    packed = tuple(packed_table(_on(device, table)) for table in tables)
    return EvaluationOperator(packed, np.ascontiguousarray(dofs.T), size, quadrature)


def _on(device: torch.device, values: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), device=device)


def packed_table(table: Tensor) -> Tensor:
    """A table (elements, points, functions), reduced to one point where it is constant on each element."""
    return table[:, :1].contiguous() if (table == table[:, :1]).all() else table


def stacked(spaces: Sequence[EvaluationOperator]) -> EvaluationOperator:
    """Several fields at the same points as one space: the components and columns of the first field come first."""
    if len(spaces) == 1:
        return spaces[0]
    ends = np.cumsum([space.size for space in spaces])
    return side_by_side([space.shifted(end - space.size, ends[-1]) for space, end in zip(spaces, ends, strict=True)])


def side_by_side(spaces: Sequence[EvaluationOperator]) -> EvaluationOperator:
    """Several fields at the same points as one space, where the fields have common columns already."""
    parts, function = [], 0
    for space in spaces:
        parts += [slice(part.start + function, part.stop + function) for part in space._parts]
        function += space.dofs.shape[1]
    tables = tuple(table for space in spaces for table in space.tables)
    dofs = np.concatenate([space.dofs for space in spaces], axis=1)
    return EvaluationOperator(tables, dofs, spaces[0].size, spaces[0].quadrature, tuple(parts))


def gram_root(space: EvaluationOperator, blocks: Blocks, scenario: int = 0) -> SparseMatrix:
    """A root G of the matrix G^T G of `blocks`, which must be symmetric and positive semidefinite at every point.

    The rows of G are the rows of E times the square root of weight times coefficient. Components that the blocks
    couple, such as those of the gradient in an anisotropic material, are multiplied by a root of their matrix at each
    point. G maps white noise z to G^T z, whose covariance is G^T G.

    Args:
        space: E.
        blocks: coefficients of the form, one for all scenarios or one for each.
        scenario: number of the scenario.

    Raises:
        ValueError: a coefficient is negative, or a coupled block is not positive semidefinite.
    """
    weights = space.quadrature.weights
    weighted = {key: block[scenario if len(block) > 1 else 0] * weights for key, block in blocks.items()}
    groups = _coupled(blocks)
    rows: list[sp.csr_matrix] = []
    for (i, j), coefficient in weighted.items():
        if i != j or any(i in group for group in groups):
            continue
        table = space.tables[i]
        square = coefficient.sum(-1, keepdim=True) if table.shape[1] == 1 else coefficient
        if (square < 0).any():
            raise ValueError("a form with a negative coefficient has no root")
        rows.append(space._rows(table * square.sqrt()[..., None], space._parts[i]))
    for group in groups:
        dense = weights.new_zeros(*weights.shape, len(group), len(group))
        for (i, j), coefficient in weighted.items():
            if i in group and j in group:
                dense[..., group.index(i), group.index(j)] = coefficient
        factor = _pointwise_root(dense)
        whole = weights.new_zeros(len(group), *weights.shape, space.dofs.shape[1])
        for k, i in enumerate(group):
            whole[k][..., space._parts[i]] = space.tables[i]
        # These are row k of L^T times the coupled components of E.
        every = slice(0, space.dofs.shape[1])
        rows += [space._rows(each, every) for each in torch.einsum("eqmk,meqa->keqa", factor, whole)]
    root = sp.vstack(rows, format="csr")
    root.eliminate_zeros()
    return SparseMatrix(root, weights.device)


def _coupled(blocks: Blocks) -> list[list[int]]:
    """The components that blocks couple, in groups; no block couples two groups."""
    groups: list[set[int]] = []
    for pair in blocks:
        if pair[0] != pair[1]:
            joined = set(pair).union(*(group for group in groups if group & set(pair)))
            groups = [group for group in groups if not group & joined] + [joined]
    return [sorted(group) for group in groups]


def _pointwise_root(squares: Tensor) -> Tensor:
    """L (..., k, k) with L L^T = squares, for symmetric and positive semidefinite matrices.

    Raises:
        ValueError: a matrix is not positive semidefinite.
    """
    factor, info = torch.linalg.cholesky_ex(squares)
    if not info.any():
        return factor
    if not torch.isfinite(squares).all():
        raise ValueError("a form with coefficients that are not finite has no root")
    # The matrices are singular where the form vanishes for some gradients, as an elastic energy does for rotations.
    values, vectors = torch.linalg.eigh(squares)
    if (values < -1e-10 * values.abs().amax(-1, keepdim=True)).any():
        raise ValueError("a form that is not positive semidefinite at every point has no root")
    return vectors * values.clamp(min=0.0).sqrt()[..., None, :]
