"""The hypergradients of single scenarios, spread over the ranks, and linear combinations of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...linalg.riesz import RieszMap
from .team import Team


@dataclass(frozen=True)
class Hypergradients:
    """Hypergradients of the nominal scenario and of b others, (b + 1, p), each of the others on its own rank.

    Attributes:
        nominal: (p,) that of the nominal scenario, which every rank has.
        rows: (k, p) those of the scenarios of this rank.
        own: (k,) the numbers of these scenarios.
        team: the ranks.
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

    def squares(self, metric: RieszMap) -> Tensor:
        """(b,) squared distances from the mean, by the diagonal of a Riesz map: one number per scenario."""
        count = int(self.team.summed([self.rows.new_tensor([float(len(self.own))])])[0])
        mean = self.team.summed([self.rows.sum(0)])[0] / count
        found = [metric.dual_norm_estimate((row - mean)[None]) ** 2 for row in self.rows]
        return self.team.joined(self.rows.new_tensor(found), self.own, count)

    def part(self, coefficients: Tensor) -> Tensor:
        """The part of the combinations that this rank contributes."""
        found = coefficients[1:][self.own].T @ self.rows
        # Every rank has the nominal hypergradient, which counts once.
        return torch.addr(found, coefficients[0], self.nominal) if self.team.rank == 0 else found
