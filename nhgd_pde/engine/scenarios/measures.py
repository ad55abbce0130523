"""Measures of weighted scenarios, and combinations of the scenarios' hypergradients.

The nominal scenario, which is solved anyway, is one of them: it stands first, before b others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.riesz import RieszMap
from .problem import Coarse, Risk
from .team import Team
from .weights import Balance


@dataclass(frozen=True)
class Hypergradients:
    """Those of the nominal scenario and of b others, (b + 1, p), each of these on the rank that it belongs to.

    Attributes:
        nominal: (p,).
        rows: those of this rank.
        own: (k,) their numbers.
        team: all ranks.
    """

    nominal: Tensor
    rows: Tensor
    own: Tensor
    team: Team

    def combined(self, coefficients: Tensor) -> Tensor:
        """(k, p) linear combinations with coefficients (b + 1, k)."""
        return self.team.summed([self.part(coefficients)])[0]

    def size(self, metric: RieszMap, shares: Tensor) -> float:
        """The sum of the norms of all of them, each times the absolute value of its share (b + 1,)."""
        norms = [metric.dual_norm_estimate(row[None]) for row in self.rows]
        own = (shares[1:][self.own].abs() * self.rows.new_tensor(norms)).sum()
        nominal = float(shares[0].abs()) * metric.dual_norm_estimate(self.nominal[None])
        return nominal + float(self.team.summed([own[None]])[0])

    def squares(self, metric: RieszMap, below: Hypergradients | None, way: Coarse | None) -> Tensor:
        """(b,) squared distances from the mean, by the diagonal of a Riesz map: one number per scenario.

        With `below`, hypergradients on the coarse mesh of at least these scenarios, the squares are those of the
        differences between the meshes.
        """
        count = int(self.team.summed([self.rows.new_tensor([float(len(self.own))])])[0])
        rows = self.rows
        if below is not None and way is not None:
            rows = rows - way.restrict_transposed(below.rows[: len(rows)])
        mean = self.team.summed([rows.sum(0)])[0] / count
        found = [metric.dual_norm_estimate((row - mean)[None]) ** 2 for row in rows]
        return self.team.joined(rows.new_tensor(found), self.own, count)

    def part(self, coefficients: Tensor) -> Tensor:
        """What this rank has of them."""
        found = coefficients[1:][self.own].T @ self.rows
        # Every rank has the nominal one, which counts once.
        return torch.addr(found, coefficients[0], self.nominal) if self.team.rank == 0 else found


@dataclass(frozen=True)
class Measured:
    """rho over weighted scenarios.

    Attributes:
        balance: the weights of the nominal scenario and of b others.
        value: rho of the values, which are corrected to first order for what is left of the equations.
        shares: (b + 1,) d rho / d values.
        gap: the measure without smoothing minus the smoothed one.
    """

    balance: Balance
    value: float
    shares: Tensor
    gap: float = 0.0

    def penalised(self, penalties: Tensor, weights: Tensor) -> Measured:
        """With penalties (b,), which weights (b,) add up and not the measure.

        Shares are then those of hypergradients of `slopes_by(weights)` times f plus the penalty.
        """
        value = self.value + float(weights @ penalties)
        return replace(self, value=value, shares=torch.cat([self.shares.new_zeros(1), weights]))

    def slopes_by(self, weights: Tensor) -> Tensor:
        """(b,) d rho / d values over weights (b,), without the nominal scenario."""
        return self.shares[1:] / weights

    def contrasts(self) -> Tensor:
        """(b + 1, k) coefficients of the hypergradients' combinations that tell of the sampling error of their sum."""
        return self.slopes[:, None] * self.balance.contrasts()

    @property
    def slopes(self) -> Tensor:
        """(b + 1,) shares divided by weights: to first order the measure is the weighted mean of slope times value."""
        weights = self.balance.weights
        used = weights > 0.0
        return torch.where(used, self.shares / torch.where(used, weights, 1.0), 1.0)


def measured_by(risk: Risk, values: Tensor, balance: Balance) -> Measured:
    """rho of values (b + 1,), those of the nominal scenario first."""
    # A scenario without weight has no share, whatever its value.
    used = balance.weights != 0.0
    some, weights = values[used], balance.weights[used]
    shares = torch.zeros_like(values)
    shares[used] = weights if risk.linear else risk.derivative(some, weights)
    value = risk.value(some, weights)
    gap = 0.0 if risk.linear else risk.exact(some, weights) - value
    return Measured(balance, value, shares, gap)


def difference(measured: Sequence[Measured]) -> Tensor:
    """(b + 1,) the shares of the first less those of the others."""
    shares = measured[0].shares.clone()
    for each in measured[1:]:
        shares[: len(each.shares)] -= each.shares
    return shares


def padded(shares: Tensor, count: int) -> Tensor:
    """(count,), with zeros after the shares."""
    return torch.nn.functional.pad(shares, (0, count - len(shares)))
