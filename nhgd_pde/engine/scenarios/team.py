"""Processes that share the scenarios of one problem, and the numbers that they exchange.

All of them run the same loop on the same numbers. Each has the nominal problem, its inverse and the outer iterate, and
the states and adjoints of its own scenarios. Sums over scenarios have the size of a control or a state, whatever the
number of scenarios. Besides them, the value of every scenario is sent to all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.counts import Counts


@dataclass(frozen=True)
class Team:
    """A single process. A team of several processes overrides every method.

    Scenario s belongs to rank s mod size, so that scenarios stay on their rank when a batch of the first ones grows.

    Attributes:
        rank: the rank of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def own(self, indices: Tensor) -> Tensor:
        """The scenarios of this rank among some scenarios."""
        return indices[indices % self.size == self.rank]

    def places(self, indices: Tensor) -> Tensor:
        """The places of scenarios of this rank among all scenarios of this rank."""
        return indices // self.size

    def portion(self, count: int) -> tuple[int, int]:
        """The first scenario of this rank and their number, where `count` new scenarios are split evenly."""
        first, end = (count * k // self.size for k in (self.rank, self.rank + 1))
        return first, end - first

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error that one rank raises in the block is raised by all ranks at its end."""
        yield

    def first_message(self, message: str) -> str:
        """The message of the first rank that has one."""
        return message

    def summed(self, parts: Sequence[Tensor], v: Tensor | None = None) -> list[Tensor]:
        """Sums over the ranks of tensors of the same shapes everywhere.

        Args:
            parts: the summands of this rank.
            v: the point that all ranks are to be at, which is checked.
        """
        return list(parts)

    def joined(self, values: Tensor, where: Tensor, count: int) -> Tensor:
        """(count,) one number of every scenario; `values` are those of the scenarios `where` of this rank."""
        if self.size == 1 and len(values) == count:
            return values
        found = values.new_zeros(count)
        found[where] = values
        return found

    def collected(self, rows: Tensor) -> Tensor:
        """(b, n) the rows of all scenarios on rank 0, none on others; `rows` (k, n) are those of this rank."""
        return rows

    def decided(self, choice: bool) -> bool:
        """The choice of rank 0."""
        return choice


ALONE = Team()


def numbers_of(team: Team, numbers: Sequence[float], like: Tensor) -> Tensor:
    """(size, k) a table with the numbers of this rank in its row. The sum over the ranks has the numbers of all."""
    table = like.new_zeros(team.size, len(numbers))
    table[team.rank] = torch.tensor(list(numbers), dtype=like.dtype, device=like.device)
    return table


class Work:
    """Adds up the work counters of all ranks, for the work since this object was made.

    Args:
        counts: the counters of the problem on this rank.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts, self._before = counts, replace(counts)

    def here(self, like: Tensor) -> Tensor:
        """The work of this rank since then, to be summed."""
        return like.new_tensor(list((self._counts - self._before).as_dict().values()))

    def by_all(self, total: Tensor) -> None:
        """Set the counters to the sum over all ranks."""
        for (name, before), done in zip(self._before.as_dict().items(), total.tolist(), strict=True):
            setattr(self._counts, name, before + round(done))
