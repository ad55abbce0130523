"""The interface of risk measures of finitely many scenarios, and the mean."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

# Largest difference between the sum of probabilities and 1.
_OF_WEIGHTS = 1e-8
# A standard deviation below this share of the largest value is only rounding.
_NO_SPREAD = math.sqrt(torch.finfo(torch.float64).eps)

# Values (S,) of a function in the scenarios -> an estimate of its expectation.
Expectation = Callable[[Tensor], float]


class RiskMeasure(ABC):
    """A convex function of the values (S,) of the scenarios, whose probabilities are weights (S,) that sum to 1.

    A measure with a kink is smoothed: `value` and its derivatives belong to the smoothed measure, `exact` does not. The
    smoothed measure is at least the mean, at most the exact measure, and at most `gap` below it; the measure of a
    constant is the constant. Numbers are computed in float64. If a value is not finite, the results are not finite.

    Attributes:
        name: name in messages.
        linear: the measure is the mean, so that sums over scenarios may be sampled.
    """

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    def linear(self) -> bool:
        return False

    @abstractmethod
    def value(self, values: Tensor, weights: Tensor) -> float: ...

    @abstractmethod
    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        """(S,) the derivative by the values: the weights of the derivatives of the scenarios, whose sum is 1."""

    @abstractmethod
    def second_derivative(self, values: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        """(S,) the derivative of `derivative` along a direction (S,) of the values."""

    def level(self, values: Tensor, weights: Tensor) -> float | None:
        """The minimising auxiliary variable, in the units of the values; None where there is none."""
        return None

    def exact(self, values: Tensor, weights: Tensor) -> float:
        """The measure without smoothing."""
        return self.value(values, weights)

    def gap(self, weights: Tensor) -> float:
        """A bound of the smoothing: value <= exact <= value + gap for any values."""
        return 0.0

    @abstractmethod
    def contributions(self, values: Tensor, weights: Tensor, expectation: Expectation) -> Tensor | None:
        """(S,) contributions of the scenarios of a sample, whose expectation is the exact measure of the distribution.

        The measure is expanded to second order around the distribution, as far as `expectation` knows it. None where a
        sample does not determine the error of the measure.
        """

    def doubt(self, values: Tensor, weights: Tensor) -> str:
        """A sentence on why a sample does not determine the measure of its distribution; empty if it does."""
        return ""

    def fitted(self, values: Tensor, weights: Tensor) -> Self:
        """The measure with a smoothing in proportion to the spread of these values."""
        return self


class SmoothedMeasure(RiskMeasure):
    """The base of measures with a kink; a frozen dataclass with two fields, among others.

    Attributes:
        smoothing: the width as a share of the scale.
        scale: the scale of the values, in their units; see `fitted`.
    """

    smoothing: float
    scale: float

    def __post_init__(self) -> None:
        for name, number in (("smoothing", self.smoothing), ("scale", self.scale)):
            require(name, 0.0 < number < math.inf, "a number greater than 0", number)

    @property
    def width(self) -> float:
        return self.smoothing * self.scale

    def fitted(self, values: Tensor, weights: Tensor) -> Self:
        return replace(self, scale=spread(values, weights))  # type: ignore[type-var]


@dataclass(frozen=True)
class Mean(RiskMeasure):
    """The expected value. Weights may be negative, as in sparse quadrature."""

    linear = True
    name = "mean"

    def value(self, values: Tensor, weights: Tensor) -> float:
        values, weights = distribution(values, weights, signed=True)
        return float(weights @ values)

    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        return distribution(values, weights, signed=True)[1]

    def second_derivative(self, values: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        return torch.zeros_like(distribution(values, weights, signed=True)[1])

    def contributions(self, values: Tensor, weights: Tensor, expectation: Expectation) -> Tensor | None:
        return values


def distribution(values: Tensor, weights: Tensor, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Values and weights in float64, checked.

    Raises:
        ValueError: they are not values and probabilities of the same scenarios.
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values: expected one number a scenario, found shape {tuple(values.shape)}")
    if weights.shape != values.shape:
        raise ValueError(f"weights: expected one for each of {len(values)} values, found shape {tuple(weights.shape)}")
    values, weights = values.detach().double(), weights.detach().double()
    total = float(weights.sum())
    if not abs(total - 1.0) <= _OF_WEIGHTS:
        raise ValueError(f"weights: expected probabilities, which sum to 1, found a sum of {total:.9g}")
    least = float(weights.min())
    if least < 0.0 and not signed:
        raise ValueError(
            f"weights: expected probabilities of at least 0, found {least:.3g}; "
            "under quadrature weights of both signs only the mean is a risk measure"
        )
    return values, weights


def moments(values: Tensor, weights: Tensor) -> tuple[float, Tensor, float]:
    """Mean, deviations from it (S,) and standard deviation, up to the rounding of differences of the values."""
    rest = values - values[0]
    mean = weights @ rest
    rest = rest - mean
    # If the first value is far from the others, the mean has to be corrected.
    correction = weights @ rest
    rest = rest - correction
    # The squares of the deviations may overflow.
    size = float(rest.abs().max()) or 1.0
    return float(values[0] + (mean + correction)), rest, size * float((weights.sqrt() * (rest / size)).norm())


def spread(values: Tensor, weights: Tensor) -> float:
    """The unit of smoothing: the standard deviation of the values.

    Values that agree in half of their digits, as for a control that is zero, do not show the spread at other controls.
    The unit is then the size of the values, or 1 if they are zero.
    """
    values, weights = distribution(values, weights)
    _, _, deviation = moments(values, weights)
    size = float(values.abs().max())
    if not math.isfinite(deviation):
        raise ValueError(f"values: expected finite ones to measure their spread, found {deviation} for it")
    return deviation if deviation > _NO_SPREAD * size else size or 1.0


def require(field: str, holds: bool, expectation: str, found: float) -> None:
    """Raises: ValueError: a condition on a field does not hold."""
    if not holds:
        raise ValueError(f"{field}: expected {expectation}, found {found}")
