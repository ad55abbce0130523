"""What a risk measure of finitely many scenarios is, and the mean, the simplest of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_OF_WEIGHTS = 1e-8  # by how much probabilities may miss the sum 1
_NO_SPREAD = math.sqrt(torch.finfo(torch.float64).eps)  # relative to the values


# Values (S,) of a function in the scenarios -> an estimate of its expectation.
Expectation = Callable[[Tensor], float]


class Risk(Protocol):
    """A convex function of the values (S,) of the scenarios, whose probabilities are weights (S,) that sum to 1.

    A measure with a kink is smoothed: `value` and its derivatives belong to the smoothed measure, `exact` does not.
    The smoothed one is never below the mean, never above the exact one and never more than `gap` below it; it keeps
    the value of a constant. Everything is computed in float64; where a value is not finite, no result is either.

    Attributes:
        name: for people.
        linear: it is the mean, so that sums over scenarios may be sampled.
    """

    @property
    def name(self) -> str: ...

    @property
    def linear(self) -> bool: ...

    def value(self, values: Tensor, weights: Tensor) -> float: ...

    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        """(S,) by the values: the weights under which derivatives of the scenarios are summed. Their sum is 1."""
        ...

    def second_derivative(self, values: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        """(S,) the derivative of `derivative` along a direction (S,) of the values."""
        ...

    def level(self, values: Tensor, weights: Tensor) -> float | None:
        """The auxiliary variable that was minimised over, in the units of the values; None where there is none."""
        ...

    def exact(self, values: Tensor, weights: Tensor) -> float:
        """The measure without smoothing."""
        ...

    def gap(self, weights: Tensor) -> float:
        """value <= exact <= value + gap for any values."""
        ...

    def contributions(self, values: Tensor, weights: Tensor, expectation: Expectation) -> Tensor | None:
        """(S,) whose expectation is the exact measure of the law that the scenarios are a sample of.

        The measure is linearised at that law, so far as `expectation` knows it, to second order.
        None where a sample does not tell how far off the measure is.
        """
        ...

    def doubt(self, values: Tensor, weights: Tensor) -> str:
        """A sentence on why a sample does not determine the measure of its distribution; empty where it may."""
        ...

    def fitted(self, values: Tensor, weights: Tensor) -> Risk:
        """The same measure with its smoothing in proportion to the spread of these values."""
        ...


@dataclass(frozen=True)
class Mean:
    """The expected value. Its weights may have either sign, as those of sparse quadrature do."""

    @property
    def name(self) -> str:
        return "mean"

    @property
    def linear(self) -> bool:
        return True

    def value(self, values: Tensor, weights: Tensor) -> float:
        values, weights = distribution(values, weights, signed=True)
        return float(weights @ values)

    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        return distribution(values, weights, signed=True)[1]

    def second_derivative(self, values: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
        return torch.zeros_like(distribution(values, weights, signed=True)[1])

    def level(self, values: Tensor, weights: Tensor) -> float | None:
        return None

    def exact(self, values: Tensor, weights: Tensor) -> float:
        return self.value(values, weights)

    def gap(self, weights: Tensor) -> float:
        return 0.0

    def contributions(self, values: Tensor, weights: Tensor, expectation: Expectation) -> Tensor | None:
        return values

    def doubt(self, values: Tensor, weights: Tensor) -> str:
        return ""

    def fitted(self, values: Tensor, weights: Tensor) -> Mean:
        return self


def distribution(values: Tensor, weights: Tensor, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Both in float64.

    Raises:
        ValueError: they are not the values and the probabilities of the same scenarios.
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
    """Mean, differences from it (S,) and standard deviation, to the rounding of differences of the values."""
    rest = values - values[0]
    mean = weights @ rest
    rest = rest - mean
    correction = weights @ rest  # of a first value far from the others
    rest = rest - correction
    size = float(rest.abs().max()) or 1.0  # squares of the rest itself may overflow
    return float(values[0] + (mean + correction)), rest, size * float((weights.sqrt() * (rest / size)).norm())


def spread(values: Tensor, weights: Tensor) -> float:
    """What smoothing is measured in: the standard deviation of the values.

    Values that agree to half of their digits tell nothing of the spread that they may have elsewhere (any control of
    zero often gives such): then it is their size, which is coarse, and 1 where they are zero.
    """
    values, weights = distribution(values, weights)
    _, _, deviation = moments(values, weights)
    size = float(values.abs().max())
    if not math.isfinite(deviation):
        raise ValueError(f"values: expected finite ones to measure their spread, found {deviation} for it")
    return deviation if deviation > _NO_SPREAD * size else size or 1.0


def require(field: str, holds: bool, expectation: str, found: float) -> None:
    """Raises: ValueError: it does not hold."""
    if not holds:
        raise ValueError(f"{field}: expected {expectation}, found {found}")


def require_smoothing(smoothing: float, scale: float) -> None:
    require("smoothing", 0.0 < smoothing < math.inf, "a number greater than 0", smoothing)
    require("scale", 0.0 < scale < math.inf, "a number greater than 0", scale)
