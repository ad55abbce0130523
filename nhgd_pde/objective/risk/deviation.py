"""The mean plus a multiple of the standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .base import Expectation, SmoothedMeasure, distribution, moments, require


@dataclass(frozen=True)
class MeanPlusDeviation(SmoothedMeasure):
    """E f + c std f, with the standard deviation smoothed as sqrt(var f + w^2) - w with a width w.

    The standard deviation has a kink at constants, so that the smoothing matters only where the deviation is not much
    larger than the width: there the derivative tends to that of the mean, and the curvature is at most c / w. The
    measure is convex and equivariant under translations. It is not monotone: the weight of a scenario is negative if
    its value is below the mean by more than std / c, and an optimum may then make good scenarios worse.

    Attributes:
        c: the multiple, at least 0.
        smoothing, scale: see `SmoothedMeasure`.
    """

    c: float
    smoothing: float = 1e-4
    scale: float = 1.0

    def __post_init__(self) -> None:
        require("c", 0.0 <= self.c < math.inf, "a number of at least 0", self.c)
        super().__post_init__()

    @property
    def name(self) -> str:
        return f"mean + {self.c:g} deviation"

    @property
    def linear(self) -> bool:
        return self.c == 0.0

    def value(self, values: Tensor, weights: Tensor) -> float:
        mean, _, deviation = moments(*distribution(values, weights))
        return mean + self.c * deviation * (deviation / (math.hypot(deviation, self.width) + self.width))

    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        values, weights = distribution(values, weights)
        _, rest, deviation = moments(values, weights)
        return weights * (1.0 + self.c * rest / math.hypot(deviation, self.width))

    def second_derivative(self, values: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        values, weights = distribution(values, weights)
        _, rest, deviation = moments(values, weights)
        size = math.hypot(deviation, self.width)
        _, moved, _ = moments(direction.double(), weights)
        unit = rest / size
        return self.c / size * weights * (moved - unit * (weights @ (unit * moved)))

    def exact(self, values: Tensor, weights: Tensor) -> float:
        mean, _, deviation = moments(*distribution(values, weights))
        return mean + self.c * deviation

    def gap(self, weights: Tensor) -> float:
        return self.c * self.width

    def contributions(self, values: Tensor, weights: Tensor, expectation: Expectation) -> Tensor | None:
        values, weights = distribution(values, weights)
        _, rest, deviation = moments(values, weights)
        if not deviation > 0.0:
            return values
        rest = rest - expectation(rest)
        variance = expectation(rest.square())
        if variance > 0.0:
            deviation = math.sqrt(variance)
        return values + self.c * 0.5 * (deviation + rest.square() / deviation)
