"""Block lower bidiagonal matrices: all the steps of a one-step method in time at once."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from .counts import Counts
from .factorisation import DIRECT, Factorisation
from .solvers.base import LinearSolver
from .sparse import ScenarioMatrix


class BidiagonalMatrix:
    """Row k of blocks is `below` x_{k-1} + `diagonal` x_k; the first row has no `below`.

    Args:
        diagonal, below: one block per row, or one block that all rows share.
        steps: number of rows of blocks.
    """

    symmetric = False
    shared = True

    def __init__(self, diagonal: ScenarioMatrix, below: ScenarioMatrix, steps: int) -> None:
        self.diagonal, self.below, self.steps = diagonal, below, steps

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
        self._factors: list[Factorisation] = []
        for k in steps:
            # The first steps may have another scheme; all others share one block.
            same = k > 0 and (diagonal.shared or torch.equal(diagonal.data[k], diagonal.data[k - 1]))
            block = self._factors[-1] if same else Factorisation(diagonal.host(k), counts, diagonal.symmetric, solver)
            self._factors.append(block)
        below = [matrix.below.row(k) for k in range(len(matrix.below.data))]
        self._below = below * matrix.steps if matrix.below.shared else below

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
