"""The choice of sensors: weights between 0 and 1, then sets near them, and how much better another set can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .entropy_bound import entropy_bound
from .exchange import WORTH, exchanged, greedy, value_of
from .information import SensorInformation
from .relaxed import RelaxedDesign, relaxed_design

# Random sets from which exchanges start, and the least chance of a candidate relative to the mean.
_RANDOM, _LEAST = 20, 1e-3
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


def best_choice(information: SensorInformation, count: int | None, penalty: float = 0.0, seed: int = 0) -> SensorChoice:
    """The best set of sensors that exchanges find, from a greedy choice, the largest weights, and random sets.

    Args:
        information: candidates and criterion.
        count: number of sensors; None with a penalty.
        penalty: what a sensor has to add to the criterion.
        seed: of the random sets.

    Raises:
        ArithmeticError: the criterion has no value.
    """
    relaxed = relaxed_design(information, count, penalty, rtol=_RTOL)
    most = information.count if count is None else count
    starts = [greedy(information, most, penalty), *_rounded(relaxed.weights.cpu().numpy(), count, seed)]
    # Equal sets are improved once.
    found = [
        exchanged(information, start, penalty) for start in {tuple(sorted(start)): start for start in starts}.values()
    ]
    values = [value_of(information, each, penalty) for each in found]
    # Of sets that are equally good to rounding the first is taken.
    first = next(k for k, value in enumerate(values) if value >= max(values) - WORTH * abs(max(values)))
    best = sorted(found[first])
    value, net = value_of(information, best), value_of(information, best, penalty)
    return SensorChoice(tuple(best), value, net, relaxed, entropy_bound(information, count))


def _rounded(weights: np.ndarray, count: int | None, seed: int) -> Iterator[list[int]]:
    """Sets by weights: those of the largest ones, and random sets that prefer large ones."""
    rng = np.random.default_rng(seed)
    if count is None:
        yield np.flatnonzero(weights > 0.5).tolist()
        yield from (np.flatnonzero(rng.random(len(weights)) < weights).tolist() for _ in range(_RANDOM))
        return
    yield np.argsort(-weights, kind="stable")[:count].tolist()
    shares = weights + _LEAST * weights.mean()
    for _ in range(_RANDOM):
        yield rng.choice(len(weights), count, replace=False, p=shares / shares.sum()).tolist()
