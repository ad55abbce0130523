"""Densities: the maps from a field between 0 and 1 to the coefficient of a material."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..pde.form import Coefficients, ControlMap
from .maps import replaced


@dataclass(frozen=True)
class Projection:
    """(tanh(b t) + tanh(b (v - t))) / (tanh(b t) + tanh(b (1 - t))), b the slope and t the threshold.

    It maps 0 to 0 and 1 to 1, and moves values in between towards these ends (Wang, Lazarov and Sigmund 2011).
    """

    threshold: float

    def __call__(self, v: Tensor, slope: Tensor) -> Tensor:
        t = self.threshold
        end = torch.tanh(slope * t)
        return (end + torch.tanh(slope * (v - t))) / (end + torch.tanh(slope * (1.0 - t)))


@dataclass(frozen=True)
class Interpolation:
    """The material of a density v: low + (high - low) v^penalty (SIMP, Bendsoe 1989).

    Penalty and slope are coefficients of the equation, because they may change in a continuation.

    Attributes:
        coefficient: name of the resulting coefficient of the equation.
        low, high: values of the coefficient for the densities 0 and 1.
        penalty, slope: names of the coefficients that hold these numbers.
        projection: projection of the density before it is raised to the power; None without one.
    """

    coefficient: str
    low: float
    high: float
    penalty: str
    slope: str
    projection: Projection | None = None

    def material(self, v: Tensor, slope: Tensor) -> Tensor:
        """The share of material (...) of a density (...)."""
        return v if self.projection is None else self.projection(v, slope)

    def map(self, region: Tensor | None = None) -> ControlMap:
        """The map into the coefficients, everywhere or in a region (P,), which is one inside and zero outside."""

        def value(coefficients: Coefficients, v: Tensor) -> Tensor:
            share = self.material(v, coefficients[self.slope])
            # Powers of negative numbers are NaN, so that negative shares count as zero; with the penalty 1 they are
            # kept.
            penalty = coefficients[self.penalty]
            power = share if float(penalty) == 1.0 else share.clamp(min=0.0) ** penalty
            return self.low + (self.high - self.low) * power

        return replaced(self.coefficient, value, region)
