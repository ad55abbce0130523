"""The table of SAGA, which takes the variance of draws from a finite sum away.

    T = (1/N) sum_i T_i,   i uniform:   T~ = T_i(now) - T_i(table) + mean(table),   then T_i(table) <- T_i(now)

T~ has the mean T whatever the table holds, and its variance vanishes where the terms settle (Defazio, Bach,
Lacoste-Julien 2014, NeurIPS 27). A term is a minibatch of a fixed partition, as usual in implementations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem
from ..engine.finite_sums import FiniteSumProblem, InnerTerm


def inner_pool(problem: BilevelProblem, size: int, count: int | None, generator: torch.Generator) -> list[InnerTerm]:
    """The terms of the inner sum; where there is no finite sum, a pool of samples that are drawn once.

    Args:
        size: number of terms, or of tests, of a minibatch.
        count: number of samples of a drawn pool; None takes 2 n / size, for a sum of moderate condition.
    """
    if isinstance(problem, FiniteSumProblem):
        return list(problem.inner_terms(size))
    drawn = count or math.ceil(2 * problem.inner_shape[1] / size)
    return [InnerTerm(problem.sample(size, generator), 1.0) for _ in range(drawn)]


@dataclass(frozen=True)
class Table:
    """
    Attributes:
        rows: the tensors of every term when it was last seen.
        mean: their means.
    """

    rows: tuple[tuple[Tensor, ...], ...]
    mean: tuple[Tensor, ...]

    @classmethod
    def of(cls, rows: Sequence[tuple[Tensor, ...]]) -> Table:
        return cls(tuple(rows), tuple(torch.stack(column).mean(0) for column in zip(*rows, strict=True)))

    def seen(self, i: int, now: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Table]:
        """The estimates T~ from term i, and the table that has its tensors of now."""
        changes = [mine - before for mine, before in zip(now, self.rows[i], strict=True)]
        estimates = tuple(mean + change for mean, change in zip(self.mean, changes, strict=True))
        means = tuple(mean + change / len(self.rows) for mean, change in zip(self.mean, changes, strict=True))
        return estimates, Table((*self.rows[:i], now, *self.rows[i + 1 :]), means)
