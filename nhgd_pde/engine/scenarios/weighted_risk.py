"""The risk measure over weighted scenarios, and the shares in which their hypergradients enter its derivative.

The nominal scenario, which is solved for anyway, is one of them. It stands first, before b others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .scenario_bilevel import Risk
from .weights import Balance


@dataclass(frozen=True)
class WeightedRisk:
    """rho over weighted scenarios.

    Attributes:
        balance: the weights of the nominal scenario and of b others.
        value: rho of the values, which are corrected to first order for the residuals of the equations.
        shares: (b + 1,) d rho / d values.
        gap: the measure without smoothing minus the smoothed one.
    """

    balance: Balance
    value: float
    shares: Tensor
    gap: float = 0.0

    def penalised(self, penalties: Tensor, weights: Tensor) -> WeightedRisk:
        """The measure plus the sum of penalties (b,) with weights (b,) of their own.

        The shares then belong to hypergradients of (d rho / d value) / weight times f plus the penalty.
        """
        value = self.value + float(weights @ penalties)
        return replace(self, value=value, shares=torch.cat([self.shares.new_zeros(1), weights]))

    @property
    def slopes(self) -> Tensor:
        """(b + 1,) shares divided by weights: to first order the measure is the weighted mean of slope times value."""
        weights = self.balance.weights
        used = weights > 0.0
        return torch.where(used, self.shares / torch.where(used, weights, 1.0), 1.0)


def weighted_risk(risk: Risk, values: Tensor, balance: Balance) -> WeightedRisk:
    """rho of values (b + 1,), those of the nominal scenario first."""
    # A scenario without weight has no share, whatever its value.
    used = balance.weights != 0.0
    some, weights = values[used], balance.weights[used]
    shares = torch.zeros_like(values)
    shares[used] = weights if risk.linear else risk.derivative(some, weights)
    value = risk.value(some, weights)
    gap = 0.0 if risk.linear else risk.exact(some, weights) - value
    return WeightedRisk(balance, value, shares, gap)


def difference(measured: Sequence[WeightedRisk]) -> Tensor:
    """(b + 1,) the shares of the first measure minus those of the others."""
    shares = measured[0].shares.clone()
    for each in measured[1:]:
        shares[: len(each.shares)] -= each.shares
    return shares


def padded(shares: Tensor, count: int) -> Tensor:
    """(count,) the shares, followed by zeros."""
    return torch.nn.functional.pad(shares, (0, count - len(shares)))
