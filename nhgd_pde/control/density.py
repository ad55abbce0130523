"""Densities: how a field between 0 and 1 becomes material."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..pde.form import Coefficients, ControlMap


@dataclass(frozen=True)
class Projection:
    """(tanh(b t) + tanh(b (v - t))) / (tanh(b t) + tanh(b (1 - t))), b the slope and t the threshold.

    It keeps 0 and 1 and pushes values between them to these ends (Wang, Lazarov and Sigmund 2011).
    """

    threshold: float

    def __call__(self, v: Tensor, slope: Tensor) -> Tensor:
        t = self.threshold
        end = torch.tanh(slope * t)
        return (end + torch.tanh(slope * (v - t))) / (end + torch.tanh(slope * (1.0 - t)))


@dataclass(frozen=True)
class Interpolation:
    """The material of a density v: low + (high - low) v^penalty (SIMP, Bendsoe 1989).

    Where penalty and slope change in a continuation, they are coefficients of the equation.

    Attributes:
        coefficient: what it makes, the name of a coefficient of the equation.
        low, high: its values where there is no material, and where there is nothing else.
        penalty, slope: names of the coefficients with these numbers.
        projection: of the density, before it is raised to the power; None without.
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
        """How it enters the equation, in a region (P,) of ones where it is not everywhere."""

        def enter(coefficients: Coefficients, v: Tensor) -> Coefficients:
            share = self.material(v, coefficients[self.slope])
            # A power of a negative number is no number; a positive power has no slope at zero unless it is one.
            penalty = coefficients[self.penalty]
            power = share if float(penalty) == 1.0 else share.clamp(min=0.0) ** penalty
            value = self.low + (self.high - self.low) * power
            if region is not None:
                value = torch.where(region > 0.0, value, coefficients[self.coefficient])
            return {**coefficients, self.coefficient: value}

        return enter
