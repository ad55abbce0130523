"""Integrals whose derivative by the state is affine in one coefficient that controls change, such as a stiffness.

    R(u, v) tested with w = load . w + int w_i (A_ij + c(v) B_ij) u_j

with components i, j of values and gradients, and A and B that depend on neither u nor v. So nothing is differentiated
by u from one control to the next: fluxes are B times gradients, J is one sum of fixed matrices with coefficients, and
the derivative by the control is the slope c'(v) times w_i B_ij u_j, point by point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..fem.coefficient_map import LARGEST_MAP, CoefficientMap, coefficient_map, map_entries
from ..fem.evaluation_operator import EvaluationOperator
from ..fem.pattern import Blocks
from ..linalg.sparse import SparseMatrix
from .form import Coefficients, Integral


@dataclass(frozen=True, eq=False)
class Scale:
    """The coefficient c(v) of an integral, at the points of its cells, or one value a cell where it is constant there.

    Attributes:
        integral: the integral, with its controls and the name of the coefficient.
        coefficients: the coefficients that the controls enter, at the same places.
        places: (places, columns) the values of each control there, one matrix for each control.
        on_cells: there is one place in each cell.
    """

    integral: Integral
    coefficients: Coefficients
    places: tuple[SparseMatrix, ...]
    on_cells: bool

    def at(self, rows: Tensor) -> Tensor:
        """c (S or 1, places) for controls (1, columns)."""
        return self._entered([each.mv(rows) for each in self.places])

    def with_slopes(self, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """c, and its derivative by the value of each control; all (S or 1, places)."""
        values = [each.mv(rows) for each in self.places]
        count = len(self._entered(values))
        with torch.enable_grad():
            # Every row of c has its own copy of the controls, so that the derivatives of the rows are not summed.
            at = [each.expand(count, -1).clone().requires_grad_(True) for each in values]
            c = self._entered(at)
            slopes = torch.autograd.grad(c.sum(), at, allow_unused=True)
        return c.detach(), tuple(torch.zeros_like(c) if slope is None else slope for slope in slopes)

    def _entered(self, values: list[Tensor]) -> Tensor:
        coefficients = self.coefficients
        for enter, each in zip(self.integral.controls, values, strict=True):
            coefficients = enter(coefficients, each)
        return coefficients[self.integral.scale].reshape(-1, self.places[0].shape[0])

    def gather(self, densities: Tensor, slopes: tuple[Tensor, ...]) -> Tensor:
        """The transpose: densities (S, places) of dc, times the slopes -> (S, columns)."""
        parts = [each.rmv((densities * slope).contiguous()) for each, slope in zip(self.places, slopes, strict=True)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def moved(self, rows: Tensor, slopes: tuple[Tensor, ...]) -> Tensor:
        """dc (S or 1, places) for changes (S or 1, columns) of the controls."""
        parts = [each.mv(rows) * slope for each, slope in zip(self.places, slopes, strict=True)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _scale(integral: Integral) -> Scale | None:
    """The coefficient of an integral; None where the controls change anything else, or the coefficient is a matrix."""
    control, quadrature = integral.control_evaluation, integral.evaluation.quadrature
    assert control is not None
    cells, points = quadrature.weights.shape
    fields = range(0, control.components, control.stride)
    tables = [(control.tables[k], control.part(k)) for k in fields]
    rows = torch.zeros(1, control.size, dtype=quadrature.weights.dtype, device=quadrature.weights.device)
    after = integral.entered(rows)
    changed = [name for name, value in after.items() if value is not integral.coefficients.get(name)]
    if changed != [integral.scale] or after[integral.scale].ndim > 2:
        return None

    def made(coefficients: Coefficients, on_cells: bool) -> Scale:
        width = 1 if on_cells else points
        places = [control._rows(table.expand(-1, width, -1), part) for table, part in tables]
        return Scale(integral, coefficients, tuple(SparseMatrix(each, rows.device) for each in places), on_cells)

    if points > 1 and all(table.shape[1] == 1 for table, _ in tables):
        found = made(_on_cells(integral.coefficients, cells, points), True)
        try:
            if found.at(rows).shape[1] == cells:
                return found
        except (KeyError, RuntimeError):
            # What the controls enter is not constant on the cells, or known at the points only.
            pass
    return made(integral.coefficients, points == 1)


def _on_cells(coefficients: Coefficients, cells: int, points: int) -> dict[str, Tensor]:
    """The coefficients that are constant on the cells, one value a cell, and those that are numbers."""
    found = {}
    for name, value in coefficients.items():
        if value.ndim and value.shape[-1] == cells * points:
            each = value.reshape(*value.shape[:-1], cells, points)
            if bool((each == each[..., :1]).all()):
                found[name] = each[..., 0].contiguous()
        else:
            found[name] = value
    return found


@dataclass(frozen=True, eq=False)
class ScaledIntegral:
    """An integral w_i (A_ij + c(v) B_ij) u_j + load, in the parts that do not change.

    Attributes:
        scale: c.
        fixed, scaled: the blocks A and B, (1, cells, points).
        symmetric: B is symmetric.
    """

    scale: Scale
    fixed: Blocks
    scaled: Blocks
    symmetric: bool

    @property
    def evaluation(self) -> EvaluationOperator:
        return self.scale.integral.evaluation

    @property
    def _weights(self) -> Tensor:
        return self.evaluation.quadrature.weights

    def blocks(self, c: Tensor) -> Blocks:
        """A + c B, (S or 1, cells, points)."""
        spread = c.reshape(len(c), *self._weights.shape[:1], -1).expand(-1, *self._weights.shape)
        total = dict(self.fixed)
        for pair, block in self.scaled.items():
            total[pair] = total[pair] + spread * block if pair in total else spread * block
        return total

    # Fluxes

    @cached_property
    def _components(self) -> list[int]:
        return sorted({each for pair in (*self.fixed, *self.scaled) for each in pair})

    @cached_property
    def _per_cell(self) -> bool:
        """Whether gradients and blocks are constant on the cells."""
        tables = all(self.evaluation.tables[i].shape[1] == 1 for i in self._components)
        return tables and all(_constant(block) for block in (*self.fixed.values(), *self.scaled.values()))

    @cached_property
    def _gradients(self) -> SparseMatrix:
        """(components * places, N) the values and gradients that occur, component by component."""
        width = 1 if self._per_cell else self._weights.shape[1]
        evaluation = self.evaluation
        rows = [
            evaluation._rows(evaluation.tables[i].expand(-1, width, -1), evaluation.part(i)) for i in self._components
        ]
        return SparseMatrix(sp.vstack(rows, format="csr"), self._weights.device)

    def gradients(self, full: Tensor) -> Tensor:
        """The values and gradients (S, components, places) of coefficients (S, N)."""
        return self._gradients.mv(full).reshape(len(full), len(self._components), -1)

    @cached_property
    def _fixed_factors(self) -> Tensor | None:
        return self._factors(self.fixed) if self.fixed else None

    @cached_property
    def _scaled_factors(self) -> Tensor:
        return self._factors(self.scaled)

    def _factors(self, blocks: Blocks) -> Tensor:
        """(places or 1, components, components); one matrix where all places have the same."""
        weights, count = self._weights, len(self._components)
        if all(bool((block == block[:, :1, :1]).all()) for block in blocks.values()):
            blocks = {pair: block[:, :1, :1] for pair, block in blocks.items()}
        elif self._per_cell:
            blocks = {pair: block[..., :1] for pair, block in blocks.items()}
        places = next(iter(blocks.values())).numel()
        factors = weights.new_zeros(places, count, count)
        for (i, j), block in blocks.items():
            factors[:, self._components.index(i), self._components.index(j)] = block.reshape(-1)
        return factors

    def fluxes(self, full: Tensor) -> Tensor:
        """B u, (S, components, places), for coefficients (S, N).

        Those of the last state of one scenario are kept: R and R_v at one design, and R at the next one, need the same.
        """
        if len(full) > 1:
            return _times(self._scaled_factors, self.gradients(full))
        if not (self._last and torch.equal(self._last[0][0], full)):
            self._last[:] = [(full.clone(), _times(self._scaled_factors, self.gradients(full)))]
        return self._last[0][1]

    @cached_property
    def _last(self) -> list[tuple[Tensor, Tensor]]:
        return []

    def _integrated(self, c: Tensor) -> Tensor:
        """c (S or 1, places of the coefficient) times the weights, at the places of the gradients."""
        weights = self._weights
        if self._per_cell:
            return c * weights.sum(1) if self.scale.on_cells else (c.reshape(len(c), *weights.shape) * weights).sum(-1)
        return (c.reshape(len(c), len(weights), -1) * weights).reshape(len(c), -1)

    def tested(self, fluxes: Tensor) -> Tensor:
        """Fluxes that include weights (S, components, places), against all functions; (S, N)."""
        return self._gradients.rmv(fluxes.reshape(len(fluxes), -1))

    def residual(self, full: Tensor, c: Tensor) -> Tensor:
        """int w_i (A_ij + c B_ij) u_j tested with all functions; (S, N)."""
        fluxes = self.fluxes(full) * self._integrated(c)[:, None]
        if self._fixed_factors is not None:
            ones = self._integrated(c.new_ones(1, c.shape[1]))
            fluxes = fluxes + _times(self._fixed_factors, self.gradients(full)) * ones[:, None]
        return self.tested(fluxes)

    def moved(self, fluxes: Tensor, dc: Tensor) -> Tensor:
        """int w_i dc B_ij u_j tested with all functions, for `fluxes` and changes dc of the coefficient."""
        return self.tested(fluxes * self._integrated(dc)[:, None])

    def paired(self, tests: Tensor, fluxes: Tensor) -> Tensor:
        """The covector of dc: int w_i B_ij u_j at each place of the coefficient, for gradients of w; (S, places)."""
        density, weights = (tests * fluxes).sum(1), self._weights
        if not self._per_cell:
            density = density.reshape(len(density), *weights.shape) * weights
            return density.sum(-1) if self.scale.on_cells else density.reshape(len(density), -1)
        if self.scale.on_cells:
            return density * weights.sum(1)
        return (density[..., None] * weights).reshape(len(density), -1)

    # The matrix

    def map(self, free: np.ndarray) -> CoefficientMap | None:
        """c -> the matrix of c B for the functions with the indices `free`; None where it would be too large.

        The coefficients are `mapped` first.
        """
        test, points = self.evaluation.columns(free), self._weights.shape[1]
        columns = 1 if self._mapped_per_cell else points
        functions = test.dofs.shape[1]
        if map_entries(len(test.dofs), columns, functions, self.symmetric) > LARGEST_MAP:
            return None
        local = self._weights.new_zeros(len(test.dofs), columns, functions, functions)
        for (i, j), block in self.scaled.items():
            left, right = test.tables[i], test.tables[j]
            own = local[:, :, test.part(i), test.part(j)]
            if self._per_cell:
                own += torch.einsum("eqa,eq,eqb->eqab", left, block[0, :, :1], right)
            elif self.scale.on_cells:
                own[:, 0] += torch.einsum("eqa,eq,eqb->eab", left, block[0] * self._weights, right)
            else:
                own += torch.einsum("eqa,eq,eqb->eqab", left, block[0] * self._weights, right)
        return coefficient_map(test.dofs, local, test.size, self.symmetric)

    @property
    def _mapped_per_cell(self) -> bool:
        return self._per_cell or self.scale.on_cells

    def mapped(self, c: Tensor) -> Tensor:
        """c as the map takes it: (S or 1, cells), or (S or 1, points) where it changes within cells."""
        return self._integrated(c) if self._per_cell else c


def _times(factors: Tensor, gradients: Tensor) -> Tensor:
    if len(factors) == 1:
        return factors[0] @ gradients
    return torch.einsum("xij,sjx->six", factors, gradients)


def _constant(block: Tensor) -> bool:
    return bool((block == block[..., :1]).all())


def scaled_integral(integral: Integral, scenarios: int, symmetric: bool) -> ScaledIntegral | None:
    """The parts of an integral with controls; None where it is not of this kind, or scenarios differ in A or B."""
    if not integral.scale or not integral.controls:
        return None
    scale = _scale(integral)
    if scale is None:
        return None
    at = [shared(_blocks_at(integral, value, scenarios)) for value in (0.0, 1.0)]
    if any(len(block) > 1 for blocks in at for block in blocks.values()):
        return None
    difference = {pair: block - at[0][pair] if pair in at[0] else block for pair, block in at[1].items()}
    scaled = {pair: block for pair, block in difference.items() if torch.count_nonzero(block)}
    return ScaledIntegral(scale, at[0], scaled, symmetric) if scaled else None


def _blocks_at(integral: Integral, value: float, scenarios: int) -> Blocks:
    """The derivative of the integrand by the state where the coefficient has a value everywhere."""
    weights = integral.evaluation.quadrature.weights
    coefficients = {**integral.coefficients, integral.scale: weights.new_full((weights.numel(),), value)}
    fixed = replace(integral, coefficients=coefficients, controls=(), control_evaluation=None)
    if fixed.closed is not None:
        return {pair: block.expand(-1, *weights.shape) for pair, block in fixed.closed_blocks().items()}
    return fixed.state_blocks(weights.new_zeros(fixed.evaluation.components, scenarios, weights.numel()), None)


def shared(blocks: Blocks) -> Blocks:
    """The blocks, reduced to one scenario where all scenarios have the same, so that they share one matrix."""
    return {key: block[:1] if _agree(block) else block for key, block in blocks.items()}


def _agree(block: Tensor) -> bool:
    """Whether a block has several rows that are all the same; the first points are compared first."""
    return block.shape[0] > 1 and all(bool((each == each[:1]).all()) for each in (block[:, :1], block))
