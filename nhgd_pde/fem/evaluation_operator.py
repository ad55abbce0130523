"""Evaluation operators: the basis functions of a space, and their gradients, at all quadrature points.

Every integral of the package is E^T W F(E u): E evaluates, F acts point by point, W are quadrature weights, and E^T
tests (the decomposition of libCEED and MFEM, arXiv 1911.09220). E is stored as small dense tables of the elements, from
which products and matrices are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.sparse import ScenarioMatrix, SparseMatrix
from .element_matrices import evaluated, product, ranges, tested
from .pattern import Blocks, Maps, Pattern
from .quadrature_points import Quadrature


@dataclass(frozen=True, eq=False)
class EvaluationOperator:
    """The functions of a space at quadrature points.

    A space of several fields has the functions of the fields side by side; see `stacked`.

    Attributes:
        tables: one (elements, points, functions) table for each component: the value, then the partial derivatives.
            A component that is constant on each element has a table with one point, and one that is the same on all
            elements is stored once (it is expanded, with stride zero).
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
        return 1 + self.quadrature.dim

    @property
    def fields(self) -> int:
        return self.components // self.stride

    def part(self, component: int) -> slice:
        """The functions that a component consists of."""
        return self.parts[component] if self.parts else slice(0, self.dofs.shape[1])

    def columns(self, kept: np.ndarray) -> EvaluationOperator:
        """The same functions with only the columns `kept` (indices), renumbered."""
        if len(kept) == self.size:
            return self
        number = np.full(self.size + 1, -1, dtype=self.dofs.dtype)
        number[kept] = np.arange(len(kept))
        return replace(self, dofs=number[self.dofs], size=len(kept))

    def shifted(self, first: int, size: int) -> EvaluationOperator:
        """The same functions as the columns from `first` on of a space with `size` columns."""
        if first == 0 and size == self.size:
            return self
        return replace(self, dofs=np.where(self.dofs < 0, -1, self.dofs + self.dofs.dtype.type(first)), size=size)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(first, end) of groups of elements whose values at the points take little memory."""
        return ranges(len(self.dofs), 4 * self.components * self.quadrature.weights.shape[1])

    def piece(self, first: int, end: int) -> EvaluationOperator:
        """The same functions at the points of the elements from `first` to before `end`."""
        tables = tuple(table[first:end] for table in self.tables)
        return replace(self, tables=tables, dofs=self.dofs[first:end], quadrature=self.quadrature.piece(first, end))

    def _rows(self, table: Tensor, part: slice) -> sp.csr_matrix:
        """A table (elements, points, functions) as a matrix (elements * points, size)."""
        data = table.cpu().numpy()
        columns = np.broadcast_to(self.dofs[:, None, part], data.shape)
        kept = columns >= 0
        pointers = np.concatenate([[0], np.cumsum(kept.sum(axis=-1).reshape(-1))])
        return sp.csr_matrix((data[kept], columns[kept], pointers), shape=(len(pointers) - 1, self.size))

    def values(self, coefficients: Tensor) -> Tensor:
        """The values alone, without the gradients: (S, size) -> (fields, S, elements * points)."""
        return self.evaluate(coefficients, self.stride)

    def evaluate(self, coefficients: Tensor, stride: int = 1) -> Tensor:
        """E u: (S, size) -> (components, S, elements * points), or every `stride`-th component of it."""
        padded = torch.cat([coefficients, coefficients.new_zeros(coefficients.shape[0], 1)], dim=1)
        scenarios, shape = len(coefficients), self.quadrature.weights.shape
        chosen = range(0, self.components, stride)
        values = padded.new_empty(len(chosen), scenarios, *shape)
        for first, end in ranges(len(self.dofs), scenarios * (self.dofs.shape[1] + shape[1])):
            columns = self._gather[:, first:end]
            local = padded.new_empty(scenarios, columns.numel())
            # Torch picks from a vector four times faster than from rows of a matrix.
            for own, row in zip(local, padded, strict=True):
                torch.index_select(row, 0, columns.reshape(-1), out=own)
            local = local.reshape(scenarios, *columns.shape)
            for row, k in zip(values, chosen, strict=True):
                row[:, first:end] = evaluated(self.tables[k][first:end], local[:, self.part(k)])
        return values.reshape(len(chosen), scenarios, -1)

    def test(self, densities: Tensor) -> Tensor:
        """Integrate densities F (components, S, elements * points) against functions: E^T W F, (S, size)."""
        weights, scenarios = self.quadrature.weights, densities.shape[1]
        density = densities.reshape(self.components, scenarios, *weights.shape)
        total = densities.new_zeros(scenarios, self.size + 1)
        for first, end in ranges(len(self.dofs), scenarios * (self.dofs.shape[1] + weights.shape[1])):
            columns = self._gather[:, first:end]
            local = densities.new_zeros(len(columns), scenarios, end - first)
            for k, table in enumerate(self.tables):
                local[self.part(k)] += tested(table[first:end], density[k, :, first:end] * weights[first:end])
            for row, own in zip(total, local.movedim(1, 0), strict=True):
                row.index_add_(0, columns.reshape(-1), own.reshape(-1))
        return total[:, : self.size]

    @cached_property
    def _gather(self) -> Tensor:
        """(functions, elements) the columns, in which functions that are left out have the index `size`."""
        dofs = self.dofs.T if self.dofs.min(initial=0) >= 0 else np.where(self.dofs.T < 0, self.size, self.dofs.T)
        return torch.from_numpy(np.ascontiguousarray(dofs)).to(self.quadrature.weights.device)

    @cached_property
    def _units(self) -> dict[tuple[object, ...], ScenarioMatrix]:
        return {}

    @cached_property
    def _patterns(self) -> list[tuple[EvaluationOperator, Pattern]]:
        return []

    @cached_property
    def _maps(self) -> list[tuple[EvaluationOperator, Maps]]:
        return []

    def pattern(self, trial: EvaluationOperator) -> Pattern:
        """The pattern of the matrices with the functions `trial`, which is made once for the points of a mesh."""
        for known, pattern in self._patterns:
            if known is trial:
                return pattern
        every = self.quadrature.patterns
        found = next((each for each in every if each.fits(self, trial)), None)
        if found is None:
            found = Pattern(self, trial)
            every.append(found)
        self._patterns.append((trial, found))
        return found

    def assemble(self, trial: EvaluationOperator, blocks: Blocks, symmetric: bool = False) -> ScenarioMatrix:
        """The matrices int test_i blocks[i, j] trial_j (size, trial.size), one for each scenario.

        A matrix of these functions alone with coefficients one, such as the mass matrix, is made once.
        """
        if trial is self and all(_is_one(block) for block in blocks.values()):
            key = (*sorted(blocks), symmetric)
            if key not in self._units:
                self._units[key] = self._assembled(trial, blocks, symmetric)
            return self._units[key]
        return self._assembled(trial, blocks, symmetric)

    def _assembled(self, trial: EvaluationOperator, blocks: Blocks, symmetric: bool) -> ScenarioMatrix:
        scenarios = max((len(coefficient) for coefficient in blocks.values()), default=1)
        if scenarios > 1:
            maps = next((own for known, own in self._maps if known is trial), None)
            if maps is None:
                maps = Maps(self, trial)
                self._maps.append((trial, maps))
            data = maps.data(blocks)
            if data is not None:
                return ScenarioMatrix(self.pattern(trial).csr, data, (self.size, trial.size), symmetric)
        whole = {pair: block.expand(-1, *self.quadrature.weights.shape) for pair, block in blocks.items()}

        def cut(first: int, end: int) -> Blocks:
            return {pair: block[:, first:end] for pair, block in whole.items()}

        return self.assemble_pieces(trial, cut, scenarios, symmetric)

    def assemble_pieces(
        self,
        trial: EvaluationOperator,
        blocks: Callable[[int, int], Blocks],
        scenarios: int = 1,
        symmetric: bool = False,
    ) -> ScenarioMatrix:
        """The same with blocks that are made piece by piece, for the elements from a first to before an end.

        The matrices of the elements never exist as a whole.
        """
        pattern, weights = self.pattern(trial), self.quadrature.weights
        data, functions = pattern.zeros(scenarios, weights), pattern.slots.shape[:2]
        numbers = functions[0] * functions[1] + self.components * weights.shape[1]
        for first, end in ranges(len(weights), scenarios * numbers):
            local = weights.new_zeros(*functions, scenarios, end - first)
            for (i, j), coefficient in blocks(first, end).items():
                left, right = self.tables[i][first:end], trial.tables[j][first:end]
                local[self.part(i), trial.part(j)] += product(left, coefficient * weights[first:end], right)
            pattern.scatter(data, local, first, end)
        return ScenarioMatrix(pattern.csr, data[:, : pattern.entries], (self.size, trial.size), symmetric)


def _is_one(block: Tensor) -> bool:
    """Whether a coefficient is the number one at all points, which is then a single number in memory."""
    return not any(block.stride()) and block.numel() > 0 and float(block.reshape(-1)[0]) == 1.0


def stacked(spaces: Sequence[EvaluationOperator]) -> EvaluationOperator:
    """Several fields at the same points as one space: the components and columns of the first field come first."""
    if len(spaces) == 1:
        return spaces[0]
    ends = np.cumsum([space.size for space in spaces])
    return side_by_side([space.shifted(end - space.size, ends[-1]) for space, end in zip(spaces, ends, strict=True)])


def side_by_side(spaces: Sequence[EvaluationOperator]) -> EvaluationOperator:
    """Several fields at the same points as one space, where the fields have common columns already."""
    if len(spaces) == 1:
        return spaces[0]
    parts, function = [], 0
    for space in spaces:
        own = (space.part(k) for k in range(space.components))
        parts += [slice(part.start + function, part.stop + function) for part in own]
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
        rows.append(space._rows(table * square.sqrt()[..., None], space.part(i)))
    for group in groups:
        dense = weights.new_zeros(*weights.shape, len(group), len(group))
        for (i, j), coefficient in weighted.items():
            if i in group and j in group:
                dense[..., group.index(i), group.index(j)] = coefficient
        factor = _pointwise_root(dense)
        whole = weights.new_zeros(len(group), *weights.shape, space.dofs.shape[1])
        for k, i in enumerate(group):
            whole[k][..., space.part(i)] = space.tables[i]
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
