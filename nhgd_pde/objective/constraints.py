"""Constraints other than bounds of controls: their reports, and the volume of a density."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ..control.controls import Controls
from ..fem.evaluation_operator import EvaluationOperator


class ConstraintReport(Protocol):
    """The report of a constraint of the file for the summary."""

    def report(self, state: Tensor, v: Tensor) -> Mapping[str, object]:
        """Figures by name, given all coefficients (S, N) of the state and the design variables (p,)."""
        ...

    def sentence(self, state: Tensor, v: Tensor) -> str:
        """The report in a few words."""
        ...


@dataclass(frozen=True, eq=False)
class VolumeConstraint:
    """The mean of a density over its region is at most a fraction; implements the engine's `Constraint`.

    Attributes:
        controls: all controls.
        number: the number of the density among them.
        evaluation: the functions of the density at the points.
        weights: (P,) weights of the points, which sum to one.
        fraction: the upper bound of the mean.
        material: the pointwise map of the density to the share of material; None where they are the same.
    """

    controls: Controls
    number: int
    evaluation: EvaluationOperator
    weights: Tensor
    fraction: float
    material: Callable[[Tensor], Tensor] | None = None

    @property
    def description(self) -> str:
        return f"volume at most {self.fraction:g}"

    def value(self, v: Tensor) -> float:
        return self.volume(v) - self.fraction

    def volume(self, v: Tensor) -> float:
        """The share of the region that the material takes."""
        if self.material is None:
            return float(self._linear @ v)
        return float(self.weights @ self.material(self._density(v)))

    def derivative(self, v: Tensor) -> Tensor:
        if self.material is None:
            return self._linear
        with torch.enable_grad():
            density = self._density(v).requires_grad_(True)
            (slope,) = torch.autograd.grad(self.weights @ self.material(density), density)
        return self._covector(slope)

    @cached_property
    def _linear(self) -> Tensor:
        """(p,) the derivative of the mean density."""
        return self._covector(self.weights)

    def _density(self, v: Tensor) -> Tensor:
        """The density at the points; (P,)."""
        own = self.controls.split(self.controls.physical(v))[self.number]
        return self.evaluation.evaluate(own[None])[0, 0]

    def _covector(self, slope: Tensor) -> Tensor:
        """A derivative by the densities at the points (P,) -> the derivative by the design variables (p,)."""
        whole = slope.new_zeros(self.evaluation.components, 1, len(slope))
        whole[0, 0] = slope / self.evaluation.quadrature.weights.reshape(-1)
        parts = [slope.new_zeros(size) for size in self.controls.rows.sizes]
        parts[self.number] = self.evaluation.test(whole)[0]
        return self.controls.pull_back(torch.cat(parts))

    def report(self, state: Tensor, v: Tensor) -> Mapping[str, object]:
        volume = self.volume(v)
        return {"kind": "volume", "value": volume, "violation": max(volume - self.fraction, 0.0)}

    def sentence(self, state: Tensor, v: Tensor) -> str:
        return f"volume {self.volume(v):.4f} (at most {self.fraction:g})"
