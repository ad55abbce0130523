"""Steps by the signs of the derivative alone, halved component by component.

    s = sign(h),   t_i <- decay t_i where s_i s_i(before) = -1,   v <- P(v - t s)

The outer update of forward-mode differentiation with sharing (Micaelli and Storkey 2021, arXiv 2007.07869; `outer_step`
of the authors' code, github.com/polo5/FDS). Magnitudes of hypergradients over long horizons span many orders, and their
signs are what can be relied on; a step that becomes small says that a component has been bracketed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .base import Feasible, HessianProduct, OuterMethod, OuterState
from .reduced_objective import Evaluation


@dataclass(frozen=True)
class SignState(OuterState):
    """Attributes:
    lengths: (p,) the step of every component.
    signs: (p,) those of the derivative at `best`.
    """

    lengths: Tensor
    signs: Tensor


@dataclass(frozen=True)
class SignSteps(OuterMethod[SignState]):
    """v+ = P(v - t sign(h)), with a step t_i for every component, times `decay` where the sign of h_i changes.

    Every step is accepted where the evaluation is finite; after one that is not, all steps are taken times `decay`. A
    component with the derivative zero stays, and its next sign is no change.

    Attributes:
        step: the first step, in the units of v.
        decay: the factor of a step where a sign changes.
    """

    step: float = 0.1
    decay: float = 0.5
    options: ClassVar[tuple[str, ...]] = ("step", "decay")

    def init(self, space: Feasible, first: Evaluation) -> SignState:
        return SignState(first, lengths=torch.full_like(first.v, self.step), signs=first.derivative.sign())

    def propose(
        self, space: Feasible, state: SignState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, SignState]:
        return space.project(state.best.v - state.lengths * state.signs), state

    def update(self, space: Feasible, state: SignState, evaluation: Evaluation) -> SignState:
        if not evaluation.finite:
            return replace(state, accepted=False, lengths=self.decay * state.lengths)
        signs = evaluation.derivative.sign()
        lengths = torch.where(signs * state.signs == -1.0, self.decay * state.lengths, state.lengths)
        step = float(state.lengths.max())
        return SignState(evaluation, step=step, lengths=lengths, signs=signs)
