"""Adam, on the gradient in the inner product of the outer space, with bounds by projection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .base import Feasible, HessianProduct, OuterMethod, OuterState
from .reduced_objective import Evaluation

# The default step is this share of the first trial of a line search, because Adam's steps do not get shorter by
# themselves.
_CAUTION = 0.1


@dataclass(frozen=True)
class AdamState(OuterState):
    """Attributes:
    mean, square: (p,) running means of the gradient and of its square, including the last evaluation.
    taken: number of gradients in these means.
    length: the step.
    floor: added to the square root to keep it away from zero, in the units of the gradient.
    """

    mean: Tensor
    square: Tensor
    taken: int
    length: float
    floor: float


@dataclass(frozen=True)
class Adam(OuterMethod[AdamState]):
    """v+ = P(v - step m / (sqrt(s) + floor)), m and s unbiased running means (Kingma and Ba 2015, Algorithm 1).

    The components are those of the Riesz representative, whose nodal values have a limit under mesh refinement. Those
    of the derivative shrink with the cells. Every step is accepted.

    Attributes:
        step: a constant step, in the units of v; None takes a tenth of the first trial of a line search.
        decay: decay rates of both running means.
        relative_floor: the published 1e-8, as a share of the largest component of the first gradient, so that
            the scale of the objective does not matter.
    """

    step: float | None = None
    decay: tuple[float, float] = (0.9, 0.999)
    relative_floor: float = 1e-8
    options: ClassVar[tuple[str, ...]] = ("step",)

    def init(self, space: Feasible, first: Evaluation) -> AdamState:
        length = self.step
        if length is None:
            trial = space.first_step(first) * space.metric.norm(first.gradient[None])
            length = _CAUTION * trial / space.metric.norm(torch.ones_like(first.v)[None])
        zero = torch.zeros_like(first.gradient)
        floor = self.relative_floor * float(first.gradient.abs().max())
        return self._taken_in(AdamState(first, zero, zero, 0, length, floor), first)

    def propose(
        self, space: Feasible, state: AdamState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, AdamState]:
        first, second = (1.0 - decay**state.taken for decay in self.decay)
        scaled = (state.mean / first) / ((state.square / second).sqrt() + state.floor)
        return space.project(state.best.v - state.length * scaled), state

    def update(self, space: Feasible, state: AdamState, evaluation: Evaluation) -> AdamState:
        return self._taken_in(replace(state, best=evaluation, step=state.length), evaluation)

    def _taken_in(self, state: AdamState, evaluation: Evaluation) -> AdamState:
        first, second = self.decay
        mean = torch.lerp(evaluation.gradient, state.mean, first)
        square = torch.lerp(evaluation.gradient**2, state.square, second)
        return replace(state, mean=mean, square=square, taken=state.taken + 1)
