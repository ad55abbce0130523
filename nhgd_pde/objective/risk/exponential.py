"""Means of exponentials: the entropic risk, and the worst case smoothed by it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Expectation, RiskMeasure, SmoothedMeasure, distribution, require

# A sample mean is useless if the tail index is above `_HEAVY`. The index is estimated from at least `_FEWEST` values.
_HEAVY = 0.7
_FEWEST = 5


@dataclass(frozen=True)
class Entropic(RiskMeasure):
    """log E exp(theta f) / theta, which needs no smoothing; it lies between the mean (theta -> 0) and the maximum.

    For small theta it is mean + theta/2 variance. It is convex, monotone and equivariant under translations, but not
    homogeneous.

    Attributes:
        theta: aversion to risk, in reciprocal units of the values.
    """

    theta: float

    def __post_init__(self) -> None:
        require("theta", 0.0 < self.theta < math.inf, "a number greater than 0", self.theta)

    @property
    def name(self) -> str:
        return f"entropic {self.theta:g}"

    def value(self, values: Tensor, weights: Tensor) -> float:
        values, weights = distribution(values, weights)
        values, weights = values[weights > 0.0], weights[weights > 0.0]
        top = values.max()
        exponents = self.theta * (values - top)
        small = weights @ torch.expm1(exponents)
        # For small theta the second form would cancel, for large theta the first one.
        logarithm = torch.log1p(small) if small > -0.5 else torch.logsumexp(weights.log() + exponents, 0)
        return float(top + logarithm / self.theta)

    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        values, weights = distribution(values, weights)
        top = values[weights > 0.0].max()
        return torch.softmax(weights.log() + self.theta * (values - top), 0)

    def second_derivative(self, values: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        tilted = self.derivative(values, weights)
        direction = direction.double()
        return self.theta * tilted * (direction - tilted @ direction)

    def contributions(self, values: Tensor, weights: Tensor, expectation: Expectation) -> Tensor | None:
        middle = self.exact(values, weights)
        powers = torch.exp(self.theta * (values.detach().double() - middle))
        known = expectation(powers)
        if not known > 0.0:
            known = 1.0
        return middle + (math.log(known) + powers / known - 1.0) / self.theta

    def doubt(self, values: Tensor, weights: Tensor) -> str:
        """A sentence if Hill's estimate (1975, Ann. Stat. 3) of the tail index of the weighted exponentials is large.

        With an index of 1 or more the exponentials have no mean, with 1/2 or more no variance. Above 0.7 their sample
        mean is useless (Vehtari, Simpson, Gelman, Yao and Gabry 2024, J. Mach. Learn. Res. 25).
        """
        values, weights = distribution(values, weights)
        logarithms = (weights[weights > 0.0].log() + self.theta * values[weights > 0.0]).sort(descending=True).values
        count = min(len(logarithms) // 5, math.ceil(3.0 * math.sqrt(len(logarithms))))
        if count < _FEWEST:
            return ""
        index = float((logarithms[:count] - logarithms[count]).mean())
        if not index > _HEAVY:
            return ""
        return (
            f"no interval: the largest exponentials make most of their mean (tail index {index:.2g}; a mean needs "
            "less than 1 and an interval less than 0.7), and the expectation may be infinite; take a smaller factor"
        )


@dataclass(frozen=True)
class WorstCase(SmoothedMeasure):
    """The largest value of a scenario of positive probability, smoothed as w log E exp(f / w) with a width w.

    The smoothed value is too small by at most w log(1 / p), where p is the probability of the worst scenario; this is
    w log S if all are equally probable. It has the properties of `Entropic` and is homogeneous in values and width
    together.

    Attributes:
        smoothing, scale: see `SmoothedMeasure`.
    """

    name = "worst case"
    smoothing: float = 1e-3
    scale: float = 1.0

    @property
    def _smooth(self) -> Entropic:
        return Entropic(1.0 / self.width)

    def value(self, values: Tensor, weights: Tensor) -> float:
        return self._smooth.value(values, weights)

    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        return self._smooth.derivative(values, weights)

    def second_derivative(self, values: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        return self._smooth.second_derivative(values, weights, direction)

    def exact(self, values: Tensor, weights: Tensor) -> float:
        values, weights = distribution(values, weights)
        return float(values[weights > 0.0].max())

    def gap(self, weights: Tensor) -> float:
        """The gap if the least probable scenario is the worst one."""
        return -self.width * math.log(float(weights[weights > 0.0].min()))

    def contributions(self, values: Tensor, weights: Tensor, expectation: Expectation) -> Tensor | None:
        """None: the largest value of a sample is only a lower bound of the worst case."""
        return None
