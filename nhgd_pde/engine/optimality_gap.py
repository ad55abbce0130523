"""How far the objective at an iterate is above the optimum: an estimate from the iterates before it, and a bound."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class GapBound:
    """A bound of the objective minus its minimum at an iterate of the conjugate gradient method.

    With Phi'' >= mu in the metric of the method, the gap is at most |h|^2 / (2 mu), h the gradient. The steps of the
    method, which are those of the Lanczos method, show more of Phi'': the Gauss-Radau rule for the measure whose
    moments they yield, with a node at mu, is a bound as well, and sharper (Golub and Meurant 1994; the recurrence is
    that of Meurant and Tichy 2013, Numer. Algorithms 62).

    Attributes:
        convexity: mu, positive.
        value, norm: objective and norm of the gradient at the iterate.
        factor: twice the bound over the square of the norm.
    """

    convexity: float
    value: float
    norm: float
    factor: float

    @classmethod
    def at(cls, convexity: float, value: float, norm: float) -> GapBound:
        """The bound where the method begins."""
        return cls(convexity, value, norm, 1.0 / convexity)

    @property
    def gap(self) -> float:
        return 0.5 * self.factor * self.norm * self.norm

    def after(self, value: float, norm: float) -> GapBound:
        """The bound after a step of the method."""
        if not 0.0 < norm < math.inf or not self.norm > 0.0:
            return replace(self, value=value, norm=norm)
        # A decrease by half of step |h|^2, the step being that of the method. Rounding errors may not lengthen it.
        decrease = max(self.value - value - _ROUNDING * abs(self.value), 0.0)
        rest, ratio = self.factor - 2.0 * decrease / self.norm / self.norm, norm / self.norm
        if not rest > 0.0:
            return self.at(self.convexity, value, norm)
        return GapBound(self.convexity, value, norm, rest / (self.convexity * rest + ratio * ratio))
