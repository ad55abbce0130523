"""The values of controls in the rows of an equation: one row for a steady equation, else one row for each time step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class ControlRows:
    """The layout of the controls in v (p,), some of which have different values in every time step.

    A control with m columns that varies in time has steps * m entries in v, those of the first step first, or with
    windows in time as many times m as there are windows.

    Attributes:
        columns: number of columns of each control.
        varying: for each control, whether it varies in time.
        steps: number of rows of the equation.
        averaged: for each control, whether its values stand at the ends of the steps while integrals after the first
            step are taken in the middle. Empty where this holds for no control.
        windows: for each control that varies in time, the number of windows of equally many steps in each of which it
            is constant; it then has windows * m entries in v. Empty where every control has a value for every step.
    """

    columns: tuple[int, ...]
    varying: tuple[bool, ...]
    steps: int = 1
    averaged: tuple[bool, ...] = ()
    windows: tuple[int, ...] = ()

    @property
    def copies(self) -> tuple[int, ...]:
        """The number of values in time of each control: 1, one for every window, or one for every step."""
        windows = self.windows or (self.steps,) * len(self.columns)
        return tuple(count if varies else 1 for count, varies in zip(windows, self.varying, strict=True))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of entries of each control in v."""
        return tuple(count * copies for count, copies in zip(self.columns, self.copies, strict=True))

    @property
    def offsets(self) -> tuple[int, ...]:
        """The first entry of each control in v, and the number of all entries."""
        return 0, *accumulate(self.sizes)

    @property
    def column_offsets(self) -> tuple[int, ...]:
        """The first column of each control among the columns of all controls, and the number of these."""
        return 0, *accumulate(self.columns)

    @property
    def size(self) -> int:
        """p, the number of entries of v."""
        return sum(self.sizes)

    @property
    def width(self) -> int:
        """The number of columns of all controls."""
        return sum(self.columns)

    def split(self, v: Tensor) -> tuple[Tensor, ...]:
        """The part of v that belongs to each control."""
        return torch.split(v, list(self.sizes))

    def spread(self, v: Tensor) -> Tensor:
        """v (p,) -> rows (steps, width); one row where no control varies."""
        if not any(self.varying):
            return v[None]
        pairs = enumerate(zip(self.split(v), self.varying, strict=True))
        staged = (self._staged(k, self._in_steps(k, part)) if varies else part for k, (part, varies) in pairs)
        return torch.cat([part.expand(self.steps, -1) for part in staged], dim=1)

    def _in_steps(self, number: int, part: Tensor) -> Tensor:
        """The entries of a control that varies in time -> its values (steps, columns) in every step."""
        values = part.reshape(self.copies[number], -1)
        return values.repeat_interleave(self.steps // len(values), 0) if len(values) < self.steps else values

    def _in_steps_transposed(self, number: int, values: Tensor) -> Tensor:
        copies = self.copies[number]
        return values.reshape(copies, self.steps // copies, -1).sum(1) if copies < self.steps else values

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
        """The transpose of `spread`: rows (any, width) -> (p,); it sums over rows that share a control."""
        if not any(self.varying):
            return rows.sum(0)
        pairs = enumerate(zip(torch.split(rows, list(self.columns), dim=1), self.varying, strict=True))
        return torch.cat(
            [
                self._in_steps_transposed(k, self._staged_transposed(k, part)).reshape(-1) if varies else part.sum(0)
                for k, (part, varies) in pairs
            ]
        )


def steady(size: int) -> ControlRows:
    """Controls (p,) of a steady equation."""
    return ControlRows((size,), (False,))
