"""Linear equations in which controls change one coefficient of some integrals: see `scaled`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..fem.coefficient_map import CoefficientMap
from ..fem.evaluation_operator import EvaluationOperator
from ..linalg.sparse import ScenarioMatrix
from .form import Integral
from .linearisation import ControlDerivative, Jacobian, Linearisation
from .rows import ControlRows
from .scaled import ScaledIntegral, scaled_integral, shared

if TYPE_CHECKING:
    from .equation import StateEquation


@dataclass(frozen=True, eq=False)
class Stiffness:
    """The integrals of such an equation: sum of c(v) B and of parts without controls.

    Attributes:
        integrals: the integrals with controls.
        others: those without controls.
        rows: maps controls to their values in the integrals.
        free: (n,) the unknowns.
        scenarios: S.
        symmetric: all derivatives by the state are symmetric.
        lifted: there are Dirichlet values that are not zero.
    """

    integrals: tuple[ScaledIntegral, ...]
    others: tuple[Integral, ...]
    rows: ControlRows
    free: np.ndarray
    scenarios: int
    symmetric: bool
    lifted: bool

    def linearised(self, equation: StateEquation, full: Tensor, v: Tensor, known: Jacobian | None) -> Linearisation:
        """The derivatives at coefficients (S, N) of the state and controls (p,), with J where it is known already."""
        # J on all coefficients, and the derivatives of the integrands, are seldom asked for.
        assembled = cache(lambda: equation._assemble(full, v))
        jacobian = known or Jacobian(self.matrix(v), lambda: assembled()[0], equation.counts, equation.solver)
        control = ScaledControl(self, full, [slopes for _, slopes in self._scales(v)])
        derivative = ControlDerivative(self.rows, control, scenarios=self.scenarios)
        return Linearisation(jacobian, derivative, lambda: assembled()[2])

    def load_share(self, g: Tensor) -> float | None:
        """c where g (S, n) is c times the loads on the unknowns, entry by entry, and J is symmetric; else None."""
        if self.lifted or not self.symmetric:
            return None
        load = -self.load[:, self.unknowns].expand(g.shape)
        largest = int(load.abs().argmax())
        share = float(g.reshape(-1)[largest] / load.reshape(-1)[largest])
        return share if math.isfinite(share) and torch.equal(share * load, g) else None

    @cached_property
    def unknowns(self) -> Tensor:
        return torch.from_numpy(np.asarray(self.free, dtype=np.int64)).to(self.load.device)

    # The coefficients of the last controls are kept, as J, R and R_v at one point need the same.

    @cached_property
    def _last(self) -> list[tuple[Tensor, list[tuple[Tensor, tuple[Tensor, ...]]]]]:
        return []

    def _scales(self, v: Tensor) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        """The coefficient of each integral, and its derivatives by the values of its controls."""
        if not (self._last and torch.equal(self._last[0][0], v)):
            rows = self.rows.spread(v)
            self._last[:] = [(v.clone(), [each.scale.with_slopes(rows) for each in self.integrals])]
        return self._last[0][1]

    def coefficients(self, v: Tensor) -> list[Tensor]:
        """The coefficient of each integral at controls (p,)."""
        return [c for c, _ in self._scales(v)]

    def least_share(self, v: Tensor, reference: list[Tensor]) -> float:
        """The largest c, at most 1, known to have J(v) >= c J for the J with the coefficients of a reference.

        All parts of J are positive semidefinite. It is 0 where a coefficient is not positive.
        """
        least = 1.0
        for c, before in zip(self.coefficients(v), reference, strict=True):
            if not (bool((c > 0.0).all()) and bool((before > 0.0).all())):
                return 0.0
            least = min(least, float((c / before).min()))
        return least

    @cached_property
    def load(self) -> Tensor:
        """(S or 1, N) all integrals at the zero state; the loads do not depend on the coefficients."""
        every = (*(each.scale.integral for each in self.integrals), *self.others)
        total: Tensor | None = None
        for one in every:
            evaluation, weights = one.evaluation, one.evaluation.quadrature.weights
            zero = weights.new_zeros(evaluation.components, self.scenarios, weights.numel())
            controls = one.control_values(weights.new_ones(1, self.rows.width))
            load = evaluation.test(one.density(zero, controls))
            total = load if total is None else total + load
        assert total is not None
        return total

    @cached_property
    def _fixed_blocks(self) -> list[tuple[Integral, dict[tuple[int, int], Tensor]]]:
        """The derivatives of the integrals without controls, where they are not zero."""
        found = []
        for integral in self.others:
            evaluation, weights = integral.evaluation, integral.evaluation.quadrature.weights
            zero = weights.new_zeros(evaluation.components, self.scenarios, weights.numel())
            blocks = shared(integral.state_blocks(zero, None) if integral.closed is None else integral.closed_blocks())
            if blocks:
                found.append((integral, dict(blocks)))
        return found

    def residual(self, full: Tensor, v: Tensor) -> Tensor:
        """The integrals tested with all functions at coefficients (S, N) of the state; (S, N)."""
        total = self.load
        for scaled, (c, _) in zip(self.integrals, self._scales(v), strict=True):
            total = total + scaled.residual(full, c)
        for integral, blocks in self._fixed_blocks:
            values = integral.evaluation.evaluate(full)
            density = torch.zeros_like(values)
            for (i, j), block in blocks.items():
                density[i] += block.reshape(len(block), -1) * values[j]
            total = total + integral.evaluation.test(density)
        return total

    # J

    @cached_property
    def _maps(self) -> list[CoefficientMap] | None:
        """The maps of all coefficients; None where one would be too large."""
        found: list[CoefficientMap] = []
        for integral in self.integrals:
            each = integral.map(self.free)
            if each is None:
                return None
            found.append(each)
        return found

    @cached_property
    def _fixed(self) -> ScenarioMatrix | None:
        """The part of J that does not change; None where it is zero."""
        blocks = [(each.evaluation, each.fixed) for each in self.integrals if each.fixed]
        blocks += [(integral.evaluation, own) for integral, own in self._fixed_blocks]
        total: ScenarioMatrix | None = None
        for evaluation, own in blocks:
            test = evaluation.columns(self.free)
            part = test.assemble(test, own, self.symmetric)
            total = part if total is None else total + part
        return total

    @cached_property
    def _tests(self) -> list[EvaluationOperator]:
        return [each.evaluation.columns(self.free) for each in self.integrals]

    def matrix(self, v: Tensor) -> ScenarioMatrix:
        """J (n, n) for each scenario, or one that they share."""
        total, maps, scales = self._fixed, self._maps, self._scales(v)
        for k, (integral, (c, _)) in enumerate(zip(self.integrals, scales, strict=True)):
            if maps is not None:
                part = maps[k].matrix(maps[k].data(integral.mapped(c)))
            else:
                test = self._tests[k]
                part = test.assemble(test, _scaled(integral, c), self.symmetric)
            total = part if total is None else total + part
        assert total is not None
        return total


@dataclass(frozen=True, eq=False)
class ScaledControl:
    """R_v without its matrix: rows (S, n) of the unknowns, columns of the controls.

    Attributes:
        stiffness: the integrals.
        full: (S, N) the coefficients of the state.
        slopes: for each integral the derivatives of its coefficient.
    """

    stiffness: Stiffness
    full: Tensor
    slopes: list[tuple[Tensor, ...]]

    @cached_property
    def _fluxes(self) -> list[Tensor]:
        every = self.stiffness.integrals
        return [each.fluxes(self.full) for each in every]

    def mv(self, d: Tensor) -> Tensor:
        """(S or 1, columns) -> (S, n)."""
        total = torch.zeros_like(self.full)
        for integral, fluxes, slopes in zip(self.stiffness.integrals, self._fluxes, self.slopes, strict=True):
            total = total + integral.moved(fluxes, integral.scale.moved(d, slopes))
        return total[:, self.stiffness.unknowns]

    def rmv(self, w: Tensor) -> Tensor:
        """(S, n) -> (S, columns)."""
        full = torch.zeros_like(self.full)
        full[:, self.stiffness.unknowns] = w
        found = []
        for integral, fluxes, slopes in zip(self.stiffness.integrals, self._fluxes, self.slopes, strict=True):
            found.append(integral.scale.gather(integral.paired(integral.gradients(full), fluxes), slopes))
        return found[0] if len(found) == 1 else torch.stack(found).sum(0)


def _scaled(integral: ScaledIntegral, c: Tensor) -> dict[tuple[int, int], Tensor]:
    """The blocks c B (S or 1, cells, points)."""
    weights = integral.evaluation.quadrature.weights
    spread = c.reshape(len(c), len(weights), -1).expand(-1, *weights.shape)
    return {pair: spread * block for pair, block in integral.scaled.items()}


def stiffness_of(equation: StateEquation) -> Stiffness | None:
    """The parts of a linear equation; None where a control changes more than one coefficient of an integral."""
    if equation.affine or not equation.linear or equation.data is not None or equation.zero_mean is not None:
        return None
    found: list[ScaledIntegral] = []
    others: list[Integral] = []
    for integral in equation.integrals:
        if not integral.controls:
            others.append(integral)
            continue
        scaled = scaled_integral(integral, equation.scenarios, equation.symmetric)
        if scaled is None:
            return None
        found.append(scaled)
    if not found:
        return None
    lifted = bool(torch.count_nonzero(equation.lift))
    return Stiffness(
        integrals=tuple(found),
        others=tuple(others),
        rows=equation.rows,
        free=equation.free,
        scenarios=equation.scenarios,
        symmetric=equation.symmetric,
        lifted=lifted,
    )
