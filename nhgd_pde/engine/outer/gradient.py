"""The projected or proximal gradient method in the inner product of the outer space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from ...linalg.safe_lengths import dot
from .base import Feasible, HessianProduct, Need, OuterMethod, OuterState, Setting
from .line_search import LineSearch
from .reduced_objective import Evaluation, value_noise

# An estimated constant step is this share of the first trial of a line search.
_CAUTION = 0.05
# Number of latest values that the objective is compared with under an estimated constant step.
_LATEST = 10
# The step is halved where the objective exceeds the largest of these values by this factor.
_RISE = 1.1
# The step is taken back, at most so many times in a row, where the objective exceeds that value by this factor.
_JUMP = 10.0
_MOST_RETREATS = 6


@dataclass(frozen=True)
class GradientState(OuterState):
    """Attributes:
    latest: values of the latest iterates, of a constant step that is estimated.
    """

    search: LineSearch
    latest: tuple[float, ...] = ()


@dataclass(frozen=True)
class GradientDescent(OuterMethod[GradientState]):
    """v+ = prox(v - t gradient): the projection onto the bounds, after shrinkage where there is an l1 term.

    Attributes:
        step: a constant t, every step of which is accepted, as in the paper; None takes Barzilai and
            Borwein's t = <s, y> / <y, y> as first trial of a backtracking search.
        search: if false, and without a step, t is a twentieth of the first trial, and halved for good where the
            objective rises above its latest values. This serves gradients that are sampled or lag behind, which allow
            no line search.
    """

    step: float | None = None
    search: bool = True
    takes: ClassVar[frozenset[Need]] = frozenset({"l1"})
    options: ClassVar[tuple[str, ...]] = ("step",)

    @classmethod
    def suited(cls, setting: Setting) -> Self:
        return cls(search=setting.searched)

    def init(self, space: Feasible, first: Evaluation) -> GradientState:
        trial = self.step or (1.0 if self.search else _CAUTION) * space.first_step(first)
        return GradientState(first, _search_from(first, trial), (first.value,))

    def propose(
        self, space: Feasible, state: GradientState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, GradientState]:
        trial = state.search.trial
        return space.prox(state.best.v - trial * state.best.gradient, trial), state

    def update(self, space: Feasible, state: GradientState, evaluation: Evaluation) -> GradientState:
        best = state.best
        moved = evaluation.v - best.v
        latest: tuple[float, ...] = ()
        if self.step is None and self.search:
            slope = space.rate(evaluation.derivative, best.v, evaluation.v) / state.search.trial
            expected = space.rate(best.derivative, best.v, evaluation.v)
            search = state.search.judge(evaluation.value, slope, value_noise(best, evaluation), expected)
            if search is not None:
                failure = "backtracking found no descent along the negative gradient" if search.exhausted else ""
                return replace(state, search=search, accepted=False, failure=failure)
            change = evaluation.derivative - best.derivative
            curvature = dot(moved, change)
            length = dot(change, evaluation.gradient - best.gradient)
            trial = curvature / length if curvature > 0.0 and length > 0.0 else 2.0 * state.search.trial
        elif self.step is None:
            trial, retreats, highest = state.search.trial, state.search.trials, max(state.latest, default=best.value)
            if not evaluation.finite or (evaluation.value > _JUMP * abs(highest) and retreats < _MOST_RETREATS):
                search = replace(state.search, trial=0.25 * trial, trials=retreats + 1)
                return replace(state, search=search, accepted=False)
            latest = (*state.latest, evaluation.value)[-_LATEST:]
            if evaluation.value > highest + (_RISE - 1.0) * abs(highest):
                trial = 0.5 * trial
        else:
            trial = self.step
        return GradientState(evaluation, _search_from(evaluation, trial), latest, step=state.search.trial)

    def shortened(self, state: GradientState, share: float) -> GradientState:
        return replace(state, search=state.search.shortened(share))

    def rebased(self, space: Feasible, state: GradientState, evaluation: Evaluation) -> GradientState:
        search = _search_from(evaluation, state.search.trial)
        return replace(state, best=evaluation, search=search, latest=(evaluation.value,))

    def revalued(self, state: GradientState, value: float) -> GradientState:
        best, search = replace(state.best, value=value), replace(state.search, value=value)
        return replace(state, best=best, search=search)


def _search_from(best: Evaluation, trial: float) -> LineSearch:
    return LineSearch.start(best.value, -dot(best.derivative, best.gradient), trial, wolfe=False)
