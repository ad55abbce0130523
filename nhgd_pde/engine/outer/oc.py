"""Optimality criteria: the fixed-point iteration of topology optimisation, for one constraint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from .base import DESIGN_STANDSTILL, Feasible, HessianProduct, Need, OuterMethod, OuterState, Setting, Smoothing
from .multiplier import find_multiplier
from .reduced_objective import Evaluation


@dataclass(frozen=True)
class OC(OuterMethod[OuterState]):
    """v+ = v (-f' / (lambda g'))^eta within the bounds and the move limit (Bendsoe; Andreassen et al. 2011).

    Lambda is the multiplier with which the constraint g holds at v+. The method serves an objective that falls with
    every variable and a constraint that rises with it, such as compliance and volume. A derivative of the other sign
    counts as zero. Every step is accepted.

    Attributes:
        move: longest step of a variable, in its own units.
        exponent: eta.
        smoothing: (v, f') -> the derivative used in the step, such as a filtered one.
    """

    move: float = 0.2
    exponent: float = 0.5
    smoothing: Smoothing | None = None
    takes: ClassVar[frozenset[Need]] = frozenset({"constraint", "smoothing"})
    options: ClassVar[tuple[str, ...]] = ("move",)

    @classmethod
    def suited(cls, setting: Setting) -> Self:
        return cls(smoothing=setting.smoothing)

    @classmethod
    def standstill(cls, setting: Setting) -> float | None:
        return DESIGN_STANDSTILL

    def objection(self, space: Feasible) -> str:
        if space.constraint is None:
            return "oc needs a constraint"
        if space.bounds is None or not bool((space.bounds[0] >= 0.0).all()):
            return "oc needs lower bounds of at least 0 (control.bounds)"
        return ""

    def init(self, space: Feasible, first: Evaluation) -> OuterState:
        return OuterState(first)

    def propose(
        self, space: Feasible, state: OuterState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, OuterState]:
        assert space.constraint is not None
        constraint, v = space.constraint, state.best.v
        derivative = state.best.derivative
        if self.smoothing is not None:
            derivative = self.smoothing(v, derivative)
        gain = (-derivative).clamp(min=0.0)
        cost = constraint.derivative(v).clamp(min=0.0)
        # The ratio is zero where the objective gains nothing, even where the constraint costs nothing.
        ratio = torch.where(gain > 0.0, gain / cost, 0.0) ** self.exponent

        least, most = space.project(v - self.move), space.project(v + self.move)
        grown = torch.where(v > 0.0, v * ratio, v)

        def at(multiplier: float) -> Tensor:
            if not multiplier > 0.0:
                return most
            return torch.minimum(torch.maximum(grown / multiplier**self.exponent, least), most)

        paid = cost > 0.0
        unit = float((gain[paid] / cost[paid]).max()) if bool(paid.any()) else 1.0
        multiplier = find_multiplier(lambda trial: constraint.value(at(trial)), unit if unit > 0.0 else 1.0)
        return at(multiplier), state

    def update(self, space: Feasible, state: OuterState, evaluation: Evaluation) -> OuterState:
        if not evaluation.finite:
            return replace(state, accepted=False, failure="the objective or its gradient is not finite")
        return OuterState(evaluation, step=1.0)
