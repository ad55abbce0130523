"""Sets of sensors: greedy choice, and exchanges of one sensor for another (Fedorov 1972) until none is better.

The gain in information is submodular, so that a greedy choice has at least 1 - 1/e of the best one (Krause, Singh and
Guestrin 2008, J. Mach. Learn. Res. 9).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .information import SensorInformation

# An exchange has to improve a criterion by this share of it, so that rounding errors do not move sensors for ever.
WORTH = 1e-10


def value_of(information: SensorInformation, chosen: Sequence[int], penalty: float = 0.0) -> float:
    """The criterion of a set, less a penalty for each of its sensors."""
    return information.value(indicator(information, chosen)) - penalty * len(chosen)


def indicator(information: SensorInformation, chosen: Sequence[int]) -> Tensor:
    """(m,) 1 for the sensors that are chosen, else 0."""
    found = information.rows.new_zeros(information.count)
    found[list(chosen)] = 1.0
    return found


def greedy(information: SensorInformation, count: int, penalty: float = 0.0, first: Sequence[int] = ()) -> list[int]:
    """Some sensors, and after them always the one that adds most, until there are `count` or none is worth the penalty.

    Of equally good ones the first is taken.
    """
    chosen = list(first)
    while len(chosen) < count:
        best, gain = _best(information, chosen)
        if gain <= penalty and penalty > 0.0:
            break
        chosen.append(best)
    return chosen


def exchanged(information: SensorInformation, chosen: Sequence[int], penalty: float = 0.0) -> list[int]:
    """A set that no exchange of one sensor improves and, with a penalty, none taken away or added."""
    found, value = list(chosen), value_of(information, chosen, penalty)
    moved = True
    while moved:
        moved = False
        for each in tuple(found):
            others = [other for other in found if other != each]
            trials = [others] if penalty > 0.0 else []
            if len(found) < information.count:
                trials.append([*others, _best(information, others, besides=each)[0]])
            better = max(trials, key=lambda trial: value_of(information, trial, penalty), default=found)
            reached = value_of(information, better, penalty)
            if reached > value + WORTH * abs(value):
                found, value, moved = better, reached, True
        if not moved and penalty > 0.0:
            grown = greedy(information, information.count, penalty, found)
            moved = value_of(information, grown, penalty) > value + WORTH * abs(value)
            found, value = (grown, value_of(information, grown, penalty)) if moved else (found, value)
    return found


def _best(information: SensorInformation, chosen: Sequence[int], besides: int | None = None) -> tuple[int, float]:
    """The candidate that adds most to a set, and what it adds; not one of the set, and not `besides`."""
    gains = information.gains(information.covariance(indicator(information, chosen)))
    gains[[*chosen, *([] if besides is None else [besides])]] = -torch.inf
    best = int(torch.argmax(gains))
    return best, float(gains[best])
