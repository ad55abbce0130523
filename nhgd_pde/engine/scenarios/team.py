"""Processes that share the scenarios of one problem, and what they tell each other.

All of them run the same loop on the same numbers: each has the nominal problem, its inverse and the outer iterate, and
states and adjoints of scenarios of its own. Sums over scenarios have the size of a control or a state, whatever the
number of scenarios; besides them one number of every scenario is told to all, its value.
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
    """A process alone; what has members overrides every verb.

    Scenario s belongs to rank s mod size: a batch of the first scenarios grows without any of them changing its place.

    Attributes:
        rank: of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def own(self, indices: Tensor) -> Tensor:
        """Those of some scenarios that this rank works on."""
        return indices[indices % self.size == self.rank]

    def places(self, indices: Tensor) -> Tensor:
        """Where scenarios of this rank are among all that it has."""
        return indices // self.size

    def portion(self, count: int) -> tuple[int, int]:
        """First and number of this rank's among `count` that belong to nobody, as even as can be."""
        first, end = (count * k // self.size for k in (self.rank, self.rank + 1))
        return first, end - first

    @contextmanager
    def together(self) -> Iterator[None]:
        """What a rank raises in the block all ranks raise at its end."""
        yield

    def told(self, message: str) -> str:
        """The message of the first rank that has one."""
        return message

    def summed(self, parts: Sequence[Tensor], v: Tensor | None = None) -> list[Tensor]:
        """Sums over the ranks of tensors of the same shapes everywhere.

        Args:
            parts: what this rank has of each.
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
        """What rank 0 chooses."""
        return choice


ALONE = Team()


def numbers_of(team: Team, numbers: Sequence[float], like: Tensor) -> Tensor:
    """(size, k) with the numbers of this rank in its row: their sum over the ranks has those of all."""
    table = like.new_zeros(team.size, len(numbers))
    table[team.rank] = torch.tensor(list(numbers), dtype=like.dtype, device=like.device)
    return table


class Work:
    """Work that is shared since it was made: what one rank has counted becomes what all have.

    Args:
        counts: of the problem on this rank.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts, self._before = counts, replace(counts)

    def here(self, like: Tensor) -> Tensor:
        """What this rank has done, to be summed."""
        return like.new_tensor(list((self._counts - self._before).as_dict().values()))

    def by_all(self, total: Tensor) -> None:
        """Told the sum."""
        for (name, before), done in zip(self._before.as_dict().items(), total.tolist(), strict=True):
            setattr(self._counts, name, before + round(done))
