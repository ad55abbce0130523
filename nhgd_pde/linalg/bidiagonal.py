"""Block lower bidiagonal matrices: all the steps of a one-step method in time at once."""

from __future__ import annotations

import scipy.sparse as sp
import torch
from torch import Tensor

from .counts import Counts
from .factorisation import Factorisation
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

    def mean(self) -> BidiagonalMatrix:
        """The number of scenarios, which is one."""
        return self

    def factorise(self, counts: Counts) -> BidiagonalFactors:
        """
        Raises:
            SingularMatrixError: a diagonal block is singular.
        """
        return BidiagonalFactors(self, counts)

    def host(self) -> sp.csr_matrix:
        """The whole matrix."""
        blocks: list[list[sp.csr_matrix | None]] = [[None] * self.steps for _ in range(self.steps)]
        for k in range(self.steps):
            blocks[k][k] = self.diagonal.host(k)
            if k:
                blocks[k][k - 1] = self.below.host(k)
        return sp.bmat(blocks, format="csr")


class BidiagonalFactors:
    """Solves by substitution, forwards, and backwards for the transpose. Steps with the same block share a
    factorisation."""

    symmetric = False

    def __init__(self, matrix: BidiagonalMatrix, counts: Counts) -> None:
        diagonal = matrix.diagonal
        self._matrix = matrix
        self._factors: list[Factorisation] = []
        for k, data in enumerate(diagonal.data):
            # The first steps may have another scheme; all others share one block.
            same = k > 0 and torch.equal(data, diagonal.data[k - 1])
            block = self._factors[-1] if same else Factorisation(diagonal.host(k), counts, diagonal.symmetric)
            self._factors.append(block)
        self._below = [matrix.below.row(k) for k in range(len(matrix.below.data))]

    def solve(self, b: Tensor) -> Tensor:
        """A^-1 b for every row of (k, n)."""
        rows = b.reshape(b.shape[0], self._matrix.steps, -1)
        found: list[Tensor] = []
        for k in range(self._matrix.steps):
            right = rows[:, k]
            if found:
                right = right - self._link(k).mv(found[-1][:, None])[:, 0]
            found.append(self._factor(k).solve(right))
        return torch.stack(found, dim=1).reshape(b.shape)

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A^-T b for every row of (k, n)."""
        rows = b.reshape(b.shape[0], self._matrix.steps, -1)
        found: list[Tensor] = []
        for k in reversed(range(self._matrix.steps)):
            right = rows[:, k]
            if found:
                right = right - self._link(k + 1).rmv(found[-1][:, None])[:, 0]
            found.append(self._factor(k).solve_transposed(right))
        return torch.stack(found[::-1], dim=1).reshape(b.shape)

    def _link(self, k: int) -> ScenarioMatrix:
        return self._below[min(k, len(self._below) - 1)]

    def _factor(self, k: int) -> Factorisation:
        return self._factors[min(k, len(self._factors) - 1)]
