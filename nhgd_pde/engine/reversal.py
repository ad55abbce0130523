"""In which order the steps of an evolution are made again, so that few of its states are kept at once.

The adjoint passes the steps backwards and needs their states, which are made again from a few kept ones: revolve
(Griewank and Walther 2000, Algorithm 799, ACM TOMS 26, 19-45). A step of an implicit scheme has a state at both of its
ends, so that here all the states of the last stretch are kept while it is passed backwards. With room for S states
besides the first one, and each step made at most r times,

    L(S, 1) = S,   L(S, r) = L(S, r - 1) + L(S - 1, r) = C(S + r - 1, r)

steps can be passed: with r = 2, some sqrt(2 n) states are enough for n steps, at the cost of one further forward solve.
Steps are made in blocks, so that L(S, 1) is the largest multiple of the length of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Repetitions of a step beyond which no schedule is looked for.
_MOST_REPEATS = 1000


@dataclass(frozen=True)
class Advance:
    """From the kept state after step `start` to the state after step `end`, which is kept too."""

    start: int
    end: int


@dataclass(frozen=True)
class Return:
    """From the kept state after step `start` to step `end` with all states kept, then back, and all of them dropped."""

    start: int
    end: int


@dataclass(frozen=True)
class Reversal:
    """The schedule for passing `steps` steps backwards.

    Attributes:
        steps: number of steps.
        room: number of states that can be kept besides the first one.
        block: number of steps that are made at once; changes of direction are at multiples of it.

    Raises:
        ValueError: there is too little room.
    """

    steps: int
    room: int
    block: int = 1

    def __post_init__(self) -> None:
        if self.room < self.steps and not self._lengths[-1][-1] >= self.steps:
            raise ValueError(f"expected more room for {self.steps} steps, found {self.room} states")

    @property
    def repeats(self) -> int:
        """The largest number of times that a step is made."""
        return 1 if self.room >= self.steps else len(self._lengths)

    @cached_property
    def _lengths(self) -> list[np.ndarray]:
        """For each number of repetitions, from 1 on, the number of steps by the room."""
        found = [np.asarray(np.arange(self.room + 1) // self.block * self.block, dtype=np.float64)]
        while found[-1][-1] < self.steps and len(found) < _MOST_REPEATS:
            found.append(np.cumsum(found[-1]))
        return found

    def actions(self) -> Iterator[Advance | Return]:
        """Everything that is done, in its order; the first one begins at step 0."""
        waiting = [(0, self.steps, self.room)]
        while waiting:
            start, end, room = waiting.pop()
            if end - start <= room:
                yield Return(start, end)
                continue
            middle = start + self._first(end - start, room)
            yield Advance(start, middle)
            waiting += [(start, middle, room), (middle, end, room - 1)]

    def _first(self, count: int, room: int) -> int:
        """The number of steps before the next kept state."""
        repeats = next(k for k, lengths in enumerate(self._lengths) if lengths[room] >= count)
        before = self._lengths[repeats - 1]
        wanted = min(before[room], count - before[room - 1])
        return int(-(-wanted // self.block)) * self.block

    @cached_property
    def forward_steps(self) -> int:
        """The number of steps that are made forwards in all."""
        return sum(action.end - action.start for action in self.actions())


def largest_block(steps: int, room: int, most: int) -> int:
    """The number of steps that are made at once, at most `most`, for which no step is made more often than with one."""
    fewest, block = Reversal(steps, room).repeats, most
    while block > 1 and _repeats(steps, room, block) > fewest:
        block -= 1
    return block


def _repeats(steps: int, room: int, block: int) -> float:
    try:
        return Reversal(steps, room, block).repeats
    except ValueError:
        return float("inf")
