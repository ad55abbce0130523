"""How the control variables stand at the rows of an equation: one row where it is steady, one a time step else."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class ControlRows:
    """Controls v (p,) side by side, some of them with values of their own in every time step.

    A control with m columns that varies in time takes steps * m entries of v, those of the first step first.

    Attributes:
        columns: of each control.
        varying: whether it varies in time.
        steps: rows of the equation.
        averaged: for each control, whether its values stand at the ends of the steps while integrals after the first
            step are taken in the middle. Empty where this holds for no control.
    """

    columns: tuple[int, ...]
    varying: tuple[bool, ...]
    steps: int = 1
    averaged: tuple[bool, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each control in v."""
        return tuple(
            count * self.steps if varies else count for count, varies in zip(self.columns, self.varying, strict=True)
        )

    @property
    def offsets(self) -> tuple[int, ...]:
        """The first entry of each control in v, and the end of the last."""
        return 0, *accumulate(self.sizes)

    @property
    def column_offsets(self) -> tuple[int, ...]:
        """The first column of each control among those of all, and the end of the last."""
        return 0, *accumulate(self.columns)

    @property
    def size(self) -> int:
        """p."""
        return sum(self.sizes)

    @property
    def width(self) -> int:
        """Columns of all the controls."""
        return sum(self.columns)

    def split(self, v: Tensor) -> tuple[Tensor, ...]:
        """The part of each control, (its size,)."""
        return torch.split(v, list(self.sizes))

    def spread(self, v: Tensor) -> Tensor:
        """v (p,) -> rows (steps, width); one row where no control varies."""
        if not any(self.varying):
            return v[None]
        parts = [
            self._staged(k, part.reshape(self.steps, count)) if varies else part.expand(self.steps, -1)
            for k, (part, count, varies) in enumerate(zip(self.split(v), self.columns, self.varying, strict=True))
        ]
        return torch.cat(parts, dim=1)

    def _staged(self, number: int, values: Tensor) -> Tensor:
        """The values (steps, columns) of a control -> those at the times of the equation's integrals."""
        if not self.averaged or not self.averaged[number]:
            return values
        return torch.cat([values[:1], 0.5 * (values[1:] + values[:-1])])

    def _staged_transposed(self, number: int, rows: Tensor) -> Tensor:
        if not self.averaged or not self.averaged[number]:
            return rows
        none, half = torch.zeros_like(rows[:1]), 0.5 * rows[1:]
        return torch.cat([rows[:1], half]) + torch.cat([half, none])

    def gather(self, rows: Tensor) -> Tensor:
        """The transpose of `spread`, rows (any, width) that it was broadcast to summed up; (p,)."""
        if not any(self.varying):
            return rows.sum(0)
        parts = torch.split(rows, list(self.columns), dim=1)
        return torch.cat(
            [
                self._staged_transposed(k, part).reshape(-1) if varies else part.sum(0)
                for k, (part, varies) in enumerate(zip(parts, self.varying, strict=True))
            ]
        )


def steady(size: int) -> ControlRows:
    """Controls (p,) of a steady equation."""
    return ControlRows((size,), (False,))
