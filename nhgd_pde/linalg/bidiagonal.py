"""Block lower bidiagonal matrices: all the steps of a one-step method in time at once."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .counts import Counts
from .factorisation import DIRECT, Factorisation
from .solvers.base import LinearSolver
from .sparse import ScenarioMatrix


class KeptFactors:
    """The last factorisations, one or two, which are used again for matrices that equal theirs.

    The steps of an evolution with constant coefficients have the same matrix; the first step may have another scheme.
    """

    def __init__(self) -> None:
        self._known: list[tuple[ScenarioMatrix, Factorisation]] = []

    def of(self, matrix: ScenarioMatrix, counts: Counts, solver: LinearSolver) -> Factorisation:
        """The factors of one matrix.

        Raises:
            SingularMatrixError: it is singular.
        """
        for known, factors in reversed(self._known):
            if _equal(known, matrix):
                return factors
        factors = Factorisation(matrix.host(), counts, matrix.symmetric, solver)
        self._known = [*self._known[-1:], (matrix, factors)]
        return factors


def _equal(a: ScenarioMatrix, b: ScenarioMatrix) -> bool:
    if a.shape != b.shape or a.symmetric != b.symmetric or not torch.equal(a.data, b.data):
        return False
    return all(x is y or np.array_equal(x, y) for x, y in zip(a.pattern, b.pattern, strict=True))


class BidiagonalMatrix:
    """Row k of blocks is `below` x_{k-1} + `diagonal` x_k; the first row has no `below`.

    Args:
        diagonal, below: one block per row, or one block that all rows share.
        steps: number of rows of blocks.
        kept: factors that other matrices have left; None for none.
    """

    symmetric = False
    shared = True

    def __init__(
        self, diagonal: ScenarioMatrix, below: ScenarioMatrix, steps: int, kept: KeptFactors | None = None
    ) -> None:
        self.diagonal, self.below, self.steps, self.kept = diagonal, below, steps, kept

    @property
    def shape(self) -> tuple[int, int]:
        return self.steps * self.diagonal.shape[0], self.steps * self.diagonal.shape[1]

    def mv(self, x: Tensor) -> Tensor:
        """(..., n) in, (..., n) out."""
        rows = x.reshape(*x.shape[:-1], self.steps, -1)
        before = torch.cat([torch.zeros_like(rows[..., :1, :]), rows[..., :-1, :]], dim=-2)
        return (self.diagonal.mv(rows) + self.below.mv(before)).reshape(x.shape)

    def rmv(self, y: Tensor) -> Tensor:
        """A^T y."""
        rows = y.reshape(*y.shape[:-1], self.steps, -1)
        back = self.below.rmv(rows)
        after = torch.cat([back[..., 1:, :], torch.zeros_like(back[..., :1, :])], dim=-2)
        return (self.diagonal.rmv(rows) + after).reshape(y.shape)

    def factorise(self, counts: Counts, solver: LinearSolver = DIRECT) -> BidiagonalFactors:
        """The factors; raises a `SingularMatrixError` where a diagonal block is singular."""
        return BidiagonalFactors(self, counts, solver)

    def host(self) -> sp.csr_matrix:
        """The whole matrix."""
        blocks: list[list[sp.csr_matrix | None]] = [[None] * self.steps for _ in range(self.steps)]
        for k, row in enumerate(blocks):
            row[k] = self.diagonal.host(k)
            if k:
                row[k - 1] = self.below.host(k)
        return sp.bmat(blocks, format="csr")


@dataclass(frozen=True, eq=False)
class LevelMatrix:
    """A `BidiagonalMatrix` whose first row of blocks has a `below` too, for a level in time before all others."""

    diagonal: ScenarioMatrix
    below: ScenarioMatrix
    steps: int

    def mv(self, x: Tensor) -> Tensor:
        """A x for x (1, all levels)."""
        levels = x.reshape(self.steps + 1, -1)
        return (self.diagonal.mv(levels[1:]) + self.below.mv(levels[:-1])).reshape(1, -1)

    def rmv(self, y: Tensor) -> Tensor:
        """A^T y for y (1, all steps)."""
        rows = y.reshape(self.steps, -1)
        after, before = self.diagonal.rmv(rows), self.below.rmv(rows)
        none = torch.zeros_like(after[:1])
        return (torch.cat([none, after]) + torch.cat([before, none])).reshape(1, -1)


class BidiagonalFactors:
    """Solves by substitution, forwards, and backwards for the transpose. Steps with the same block share a
    factorisation."""

    symmetric = False

    def __init__(self, matrix: BidiagonalMatrix, counts: Counts, solver: LinearSolver = DIRECT) -> None:
        diagonal, steps = matrix.diagonal, range(matrix.steps)
        self._steps = matrix.steps
        kept = KeptFactors() if matrix.kept is None else matrix.kept
        if diagonal.shared:
            self._factors = [kept.of(diagonal, counts, solver)] * matrix.steps
        else:
            self._factors = [kept.of(diagonal.row(k), counts, solver) for k in steps]
        below = [matrix.below.row(k) for k in range(len(matrix.below.data))]
        self._below = below * matrix.steps if matrix.below.shared else below

    def within(self, rtol: float) -> Self:
        """As of a `Factorisation`, for the solves of every step."""
        view = copy(self)
        view._factors = [factor.within(rtol) for factor in self._factors]
        return view

    def solve(self, b: Tensor) -> Tensor:
        """A^-1 b for every row of (k, n)."""
        rows = b.reshape(b.shape[0], self._steps, -1)
        found: list[Tensor] = []
        for k in range(self._steps):
            right = rows[:, k]
            if found:
                right = right - self._below[k].mv(found[-1][:, None])[:, 0]
            found.append(self._factors[k].solve(right))
        return torch.stack(found, dim=1).reshape(b.shape)

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A^-T b for every row of (k, n)."""
        rows = b.reshape(b.shape[0], self._steps, -1)
        found: list[Tensor] = []
        for k in reversed(range(self._steps)):
            right = rows[:, k]
            if found:
                right = right - self._below[k + 1].rmv(found[-1][:, None])[:, 0]
            found.append(self._factors[k].solve_transposed(right))
        return torch.stack(found[::-1], dim=1).reshape(b.shape)
