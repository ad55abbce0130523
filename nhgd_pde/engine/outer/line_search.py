"""A line search for weak Wolfe conditions, which is given values instead of calling a function."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# Largest number of trial steps of one search.
_MOST_TRIALS = 25
# Values agree up to rounding where they differ by less than this share of themselves.
_ROUNDING = 1e-14


@dataclass(frozen=True)
class LineSearch:
    """One search along a direction; phi(t) the objective, phi'(t) its slope.

    Bisection between a step that is too short and one that is too long (Lewis and Overton 2013, Math.
    Program. 141), with the secant of the slopes as first guess. Close to an optimum differences of values
    drown in rounding or in the error of the inner solution: within that noise a step is judged by its slope
    alone (the approximate Wolfe conditions of Hager and Zhang 2005, SIAM J. Optim. 16).

    Attributes:
        value, slope: phi(0) and phi'(0) < 0.
        trial: the step to evaluate next.
        low, high: steps known to be too short and too long; low_slope is phi'(low).
        trials: evaluations so far.
        wolfe: the curvature condition is required; otherwise sufficient decrease is enough.
        cut: longer steps are refused by the problem, and no step is known to be too long for another reason, so that
            possibly no step satisfies the curvature condition.
    """

    value: float
    slope: float
    trial: float
    low: float = 0.0
    low_slope: float = 0.0
    high: float = math.inf
    trials: int = 0
    wolfe: bool = True
    cut: bool = False

    DECREASE = 1e-4
    CURVATURE = 0.9

    @classmethod
    def start(cls, value: float, slope: float, trial: float, wolfe: bool = True) -> LineSearch:
        return cls(value, slope, trial, low_slope=slope, wolfe=wolfe)

    @property
    def exhausted(self) -> bool:
        return self.trials >= _MOST_TRIALS

    def shortened(self, share: float) -> LineSearch:
        """The search with a shorter trial step: this share of the way from the longest step known to be too short."""
        return replace(self, trial=self.low + share * (self.trial - self.low), cut=True)

    def settled(self) -> LineSearch:
        """The search that goes back to the longest step known to decrease, whatever the slope is there."""
        return replace(self, trial=self.low, low=0.0, cut=True)

    def judge(self, value: float, slope: float, noise: float, moved: float | None = None) -> LineSearch | None:
        """None if the trial step is accepted, else the search with its next trial step.

        Args:
            value, slope: phi(trial) and phi'(trial). A step where they are not finite is too long.
            noise: error of differences of values.
            moved: slope at 0 times the step that was really taken, where a projection shortened it; `slope` is then the
                slope along that step, too.
        """
        expected = self.slope * self.trial if moved is None else min(moved, 0.0)
        finite = math.isfinite(value) and math.isfinite(slope)
        if not (finite and self._decreases(value, slope, expected, noise)):
            return self._nearer(value, expected, noise, finite)
        if not self.wolfe or self.cut or slope >= self.CURVATURE * self.slope:
            return None
        return self._further(slope)

    def _decreases(self, value: float, slope: float, expected: float, noise: float) -> bool:
        """Whether the trial step decreases phi enough, compared with the first-order change that was expected."""
        if value <= self.value + self.DECREASE * expected:
            return True
        if not value <= self.value + noise:
            return False
        # Both conditions, whatever `wolfe` says: values this close rule out nothing, not even an ascent. Where they
        # agree up to rounding, a slope as steep as at the start calls for a longer step, not a shorter one.
        equal = value <= self.value + _ROUNDING * abs(self.value)
        steepest = -math.inf if equal else self.CURVATURE * expected
        return steepest <= slope * self.trial <= (2 * self.DECREASE - 1) * expected

    def _nearer(self, value: float, expected: float, noise: float, finite: bool) -> LineSearch:
        """The search with a shorter trial step, after one that was too long."""
        # A trial that cannot be evaluated costs the most and says the least: go far back.
        share = 0.5 if finite and expected < 0.0 else 0.1
        if finite and expected < 0.0 and self.low == 0.0 and value - self.value > noise:
            # The minimiser of the quadratic function through phi(0), phi'(0) and phi(trial).
            share = min(max(-0.5 * expected / (value - self.value - expected), 0.01), 0.5)
        trial = self.low + share * (self.trial - self.low)
        return replace(self, high=self.trial, trial=trial, trials=self.trials + 1, cut=self.cut and not finite)

    def _further(self, slope: float) -> LineSearch:
        """The search with a longer trial step, which the secant of the slopes suggests."""
        step = self.trial - self.low
        bend = slope - self.low_slope
        guess = self.trial - slope * step / bend if bend > 0.0 else math.inf
        if math.isinf(self.high):
            guess = min(max(guess, 2.0 * self.trial), 100.0 * self.trial)
        else:
            gap = self.high - self.trial
            guess = min(max(guess, self.trial + 0.1 * gap), self.high - 0.1 * gap)
        return replace(self, low=self.trial, low_slope=slope, trial=guess, trials=self.trials + 1)


def exact_share(slope: float, trial_slope: float) -> float | None:
    """The minimiser of a quadratic as a share of the trial step, from the slopes at its two ends.

    None where the slopes show no convexity, or the minimiser is so far off that extrapolating to it loses
    digits that matter: a share of 1000 loses three of sixteen.
    """
    bend = trial_slope - slope
    if not bend > 0.0:
        return None
    share = -slope / bend
    return share if 0.0 < share <= 1e3 else None
