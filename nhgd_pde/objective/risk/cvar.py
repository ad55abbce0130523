"""The conditional value at risk: the mean of the worst scenarios."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .base import Expectation, SmoothedMeasure, distribution, require

_EPSILON = torch.finfo(torch.float64).eps
# Largest number of steps of the search for a level. Halvings from the largest to the least number take about 2,000.
_MOST_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class CVaRIntegrand:
    """t + plus(f - t) / (1 - beta) of each scenario minus a constant, and its derivatives by f and t; all (S,).

    Attributes:
        value: the value.
        exact: the value without smoothing; its mean is least at the exact level, and nearly least at the smoothed one.
        by_value: the derivative by f.
        by_level: the derivative by t.
        curvature: k in the second derivative [[k, -k], [-k, k]] by (f, t).
    """

    value: Tensor
    exact: Tensor
    by_value: Tensor
    by_level: Tensor
    curvature: Tensor


@dataclass(frozen=True)
class CVaR(SmoothedMeasure):
    """min over t of t + E plus(f - t) / (1 - beta): the mean of the worst share 1 - beta (Rockafellar, Uryasev 2000).

    The plus function is smoothed by w log(1 + exp(s / w)) with a width w (Kouri and Surowiec 2016), which is too large
    by at most `gap`. After subtracting `gap`, the measure of a constant is the constant, and the result lies between
    the mean and the exact measure: it is the largest mean under weights of at most 1 / (1 - beta) times the
    probabilities, minus their relative entropy. With a fixed width it is convex, monotone and equivariant under
    translations, and it is homogeneous in values and width together. Apart from the constant, the error is of second
    order in the width where the values are dense.

    t is eliminated: `derivative` needs no derivative of t (envelope theorem), but `second_derivative` does. The
    curvature is positive everywhere, so that t is unique. A plus function that is exact outside an interval would have
    no curvature if no value lies in this interval.

    Attributes:
        beta: the level between 0 and 1; 0 would be the mean and 1 the worst case.
        smoothing, scale: see `SmoothedMeasure`.
    """

    beta: float
    smoothing: float = 1e-2
    scale: float = 1.0

    def __post_init__(self) -> None:
        require("beta", 0.0 < self.beta < 1.0, "a level between 0 and 1, both excluded", self.beta)
        super().__post_init__()

    @property
    def name(self) -> str:
        return f"CVaR {self.beta:g}"

    def value(self, values: Tensor, weights: Tensor) -> float:
        values, weights = distribution(values, weights)
        x, t = self._solution(values, weights)
        return t + self.width * float(weights @ _softplus(x)) / (1.0 - self.beta) - self.gap(weights)

    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        values, weights = distribution(values, weights)
        x, _ = self._solution(values, weights)
        return weights * torch.sigmoid(x) / (1.0 - self.beta)

    def second_derivative(self, values: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        values, weights = distribution(values, weights)
        x, _ = self._solution(values, weights)
        log_curvature = logsigmoid(x) + logsigmoid(-x)
        # t moves with the mean of the direction weighted by the curvatures; logarithms are used because these may
        # underflow.
        direction = direction.double()
        motion = torch.softmax(weights.log() + log_curvature, 0) @ direction
        return weights * log_curvature.exp() / (self.width * (1.0 - self.beta)) * (direction - motion)

    def level(self, values: Tensor, weights: Tensor) -> float | None:
        """The minimising t, which tends to a value at risk as the width tends to zero."""
        return self._solution(*distribution(values, weights))[1]

    def exact(self, values: Tensor, weights: Tensor) -> float:
        values, weights = distribution(values, weights)
        order = torch.argsort(values, descending=True)
        ordered = weights[order]
        worse = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)[:-1]])
        # The scenario in which the tail begins counts with its share in the tail.
        share = torch.minimum((1.0 - self.beta - worse).clamp(min=0.0), ordered)
        # Values are measured from an anchor, so that the measure of a constant is exact.
        anchor = float(values[order[0]])
        return anchor + float(share @ (values[order] - anchor) / share.sum())

    def gap(self, weights: Tensor) -> float:
        """w H(beta) / (1 - beta) with the entropy H of a coin, because H is concave; constants attain it."""
        entropy = -self.beta * math.log(self.beta) - (1.0 - self.beta) * math.log1p(-self.beta)
        return self.width * entropy / (1.0 - self.beta)

    def contributions(self, values: Tensor, weights: Tensor, expectation: Expectation) -> Tensor | None:
        t = value_at_risk(values, weights, self.beta)
        return t + (values.detach().double() - t).clamp(min=0.0) / (1.0 - self.beta)

    def integrand(self, values: Tensor, t: float) -> CVaRIntegrand:
        """The integrand for methods in which t is a variable: its weighted mean is minimised in (f, t) jointly.

        For all scenarios, the minimum in t is `value`, at t = `level`.
        """
        above, tail = values.detach().double() - t, 1.0 - self.beta
        x = above / self.width
        slope = torch.sigmoid(x) / tail
        value = t + self.width * _softplus(x) / tail - self.gap(values)
        exact = t + above.clamp(min=0.0) / tail
        return CVaRIntegrand(
            value, exact, slope, 1.0 - slope, torch.sigmoid(x) * torch.sigmoid(-x) / (self.width * tail)
        )

    def _solution(self, values: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        """(values - t) / width and t.

        t solves E sigmoid((f - t) / w) = 1 - beta, and the left side decreases over the bracket. Values are measured
        from the value at risk, so that a width far below the values loses no digits.
        """
        anchor = value_at_risk(values, weights, self.beta)
        z = (values - anchor) / self.width
        if not bool(z.isfinite().all()):
            return torch.full_like(z, math.nan), math.nan
        centre = math.log(self.beta) - math.log1p(-self.beta)

        def excess(shift: float) -> float:
            return float(weights @ torch.sigmoid(z - shift)) - (1.0 - self.beta)

        low, high = float(z.min()) + centre - 1.0, float(z.max()) + centre + 1.0
        # Loaded here, because it takes long and most solves do without it.
        import scipy.optimize

        shift = scipy.optimize.brentq(excess, low, high, xtol=_EPSILON, rtol=4.0 * _EPSILON, maxiter=_MOST_STEPS)
        return z - shift, anchor + self.width * shift


def value_at_risk(values: Tensor, weights: Tensor, beta: float) -> float:
    """The smallest value that is not exceeded with a probability of at least beta."""
    values, weights = distribution(values, weights)
    order = torch.argsort(values)
    below = weights[order].cumsum(0)
    # A sum that is below the level only by rounding has reached it.
    reached = int((below < beta - (8 + len(order)) * _EPSILON).sum())
    return float(values[order[min(reached, len(order) - 1)]])


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), to rounding."""
    return torch.logaddexp(x, torch.zeros_like(x))
