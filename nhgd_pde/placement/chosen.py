"""The choice of sensors: weights between 0 and 1, then sets near them, and how much better another set can be."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .entropy_bound import entropy_bound
from .exchange import exchanged, greedy, value_of
from .information import SensorInformation
from .relaxed import RelaxedDesign, relaxed_design

# Gradient of the relaxed problem at its end, relative to the first one. The bound is off by about as much.
_RTOL = 1e-3


@dataclass(frozen=True, eq=False)
class SensorChoice:
    """A set of sensors.

    Attributes:
        chosen: their numbers, rising.
        value: the criterion of the set.
        net: the value, less the penalty for each sensor.
        relaxed: weights in place of a set, and a bound of `net` of all sets.
        entropy: a second bound; infinite where there is none.
    """

    chosen: tuple[int, ...]
    value: float
    net: float
    relaxed: RelaxedDesign
    entropy: float

    @property
    def bound(self) -> float:
        """No set has a larger `net`. Rounding errors may leave the bounds a little below that of the best set."""
        return max(min(self.relaxed.bound, self.entropy), self.net)

    @property
    def gap(self) -> float:
        """The largest share of the bound by which a set can be better."""
        return (self.bound - self.net) / self.bound if self.bound > 0.0 else 0.0


def best_choice(information: SensorInformation, count: int | None, penalty: float = 0.0) -> SensorChoice:
    """The best set of sensors that greedy choice and exchanges find, from nothing and from the relaxed problem.

    Args:
        information: candidates and criterion.
        count: number of sensors; None with a penalty.
        penalty: what a sensor has to add to the criterion.

    Raises:
        ArithmeticError: the criterion has no value.
    """
    relaxed = relaxed_design(information, count, penalty, rtol=_RTOL)
    most = information.count if count is None else count
    order = torch.argsort(relaxed.weights, descending=True, stable=True)
    largest = order[: most if count is not None else int((relaxed.weights > 0.5).sum())].tolist()
    starts = [greedy(information, most, penalty), largest]
    found = [exchanged(information, start, penalty) for start in starts]
    values = [value_of(information, each, penalty) for each in found]
    best = sorted(found[0] if values[0] >= values[1] else found[1])
    return SensorChoice(
        tuple(best),
        value_of(information, best),
        value_of(information, best, penalty),
        relaxed,
        entropy_bound(information, count),
    )
