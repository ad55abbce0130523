"""How far the objective at an iterate is above the optimum, estimated from the iterates before it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

# Number of iterates that an estimate looks at.
LENGTH = 7
# Decreases of the objective by less than this share of it are rounding errors.
_ROUNDING = 8.0 * sys.float_info.epsilon


def gap_of(trail: Sequence[tuple[float, float]]) -> float:
    """An estimate of the objective minus its minimum, for the last of some iterates; infinite where there is none.

    It is the largest one of several estimates. Near a minimum the gap is proportional to the square of the gradient,
    with a factor that the decrease of both over the last iterates shows. And the decreases of the objective over one,
    two and three steps are continued as geometric series.

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
    values = [each for each, _ in recent]
    continued = [_continued(values, count) for count in range(1, (len(values) - 1) // 2 + 1)]
    return max(max(factors) * norm * norm, *continued, *([] if continued else [math.inf]))


def _continued(values: Sequence[float], count: int) -> float:
    """The sum of the decreases to come, as a geometric series of those over the last and the `count` steps before."""
    before, after = values[-2 * count - 1] - values[-count - 1], values[-count - 1] - values[-1]
    rounding = _ROUNDING * abs(values[-1])
    if after <= rounding:
        # Differences of rounding errors say nothing of a rate.
        return rounding if after > 0.0 else 0.0
    ratio = after / before if before > 0.0 else math.inf
    return after * ratio / (1.0 - ratio) if ratio < 1.0 else math.inf
