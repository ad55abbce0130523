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
        given: (m,) of each control whose values stand at the ends of the steps and that the equation sees in their
            middle: its value at the time 0. None of the others; empty where there are none.
    """

    columns: tuple[int, ...]
    varying: tuple[bool, ...]
    steps: int = 1
    given: tuple[Tensor | None, ...] = ()

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
            self._middle(k, part.reshape(self.steps, count)) if varies else part.expand(self.steps, -1)
            for k, (part, count, varies) in enumerate(zip(self.split(v), self.columns, self.varying, strict=True))
        ]
        return torch.cat(parts, dim=1)

    def spread_change(self, d: Tensor) -> Tensor:
        """What a change d (p,) changes of `spread`."""
        return self.spread(d) - self.spread(torch.zeros_like(d)) if any(self._at_ends) else self.spread(d)

    @property
    def _at_ends(self) -> tuple[bool, ...]:
        return tuple(each is not None for each in self.given)

    def _middle(self, number: int, values: Tensor) -> Tensor:
        """Values (steps, m) of a control at the ends of the steps -> in their middle."""
        first = self.given[number] if self.given else None
        return values if first is None else 0.5 * (values + torch.cat([first[None], values[:-1]]))

    def _middle_transposed(self, number: int, rows: Tensor) -> Tensor:
        if not self.given or self.given[number] is None:
            return rows
        return 0.5 * (rows + torch.cat([rows[1:], torch.zeros_like(rows[:1])]))

    def gather(self, rows: Tensor) -> Tensor:
        """The transpose of `spread_change`, rows (any, width) that it was broadcast to summed up; (p,)."""
        if not any(self.varying):
            return rows.sum(0)
        parts = torch.split(rows, list(self.columns), dim=1)
        return torch.cat(
            [
                self._middle_transposed(k, part).reshape(-1) if varies else part.sum(0)
                for k, (part, varies) in enumerate(zip(parts, self.varying, strict=True))
            ]
        )


def steady(size: int) -> ControlRows:
    """Controls (p,) of a steady equation."""
    return ControlRows((size,), (False,))
