"""How far the objective at an iterate is above the optimum, estimated from the iterates before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Number of iterates that an estimate looks at.
LENGTH = 7


def gap_of(trail: Sequence[tuple[float, float]]) -> float:
    """An estimate of the objective minus its minimum, for the last of some iterates; infinite where there is none.

    It is the larger one of two estimates. Near a minimum the gap is proportional to the square of the gradient, with a
    factor that the decrease of both over the last iterates shows. And the decreases of the objective over two equal
    numbers of iterates are continued as a geometric series.

    Args:
        trail: objective and norm of the gradient of each iterate, the last one last.
    """
    recent = trail[-LENGTH:]
    if len(recent) < 2:
        return math.inf
    value, norm = recent[-1]
    if norm == 0.0:
        return 0.0
    factors = [
        (before - value) / (larger * larger - norm * norm) for before, larger in recent[:-1] if larger > 1.1 * norm
    ]
    factors = [each for each in factors if each > 0.0]
    if not factors:
        return math.inf
    return max(max(factors) * norm * norm, _continued([each for each, _ in recent]))


def _continued(values: Sequence[float]) -> float:
    """The sum of the decreases to come, as a geometric series of those over two equal numbers of iterates."""
    half = (len(values) - 1) // 2
    if half < 1:
        return math.inf
    before, after = values[-2 * half - 1] - values[-half - 1], values[-half - 1] - values[-1]
    if after <= 0.0:
        return 0.0
    ratio = after / before if before > 0.0 else math.inf
    return after * ratio / (1.0 - ratio) if ratio < 1.0 else math.inf
