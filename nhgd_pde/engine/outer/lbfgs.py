"""Limited-memory BFGS in the inner product of the outer space, between bounds and with an l1 term."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from ...linalg.safe_lengths import dot, paired_length
from .base import Feasible, HessianProduct, Need, OuterMethod, OuterState, Setting
from .exact_step import blend_with_l1, expected_reduction, share_between_kinks
from .line_search import LineSearch, exact_share
from .quasi_newton import Pair, QuasiNewton
from .reduced_objective import Evaluation, value_noise
from .semismooth import minimise_between_kinks

# Smallest and largest default number of pairs, and the memory in bytes that they may take beyond the smallest number.
# With fewer pairs than iterations, directions are no longer conjugate.
_LEAST_PAIRS, _MOST_PAIRS = 20, 100
_PAIRS_BYTES = 512 * 2**20


@dataclass(frozen=True)
class LBFGSState(OuterState):
    """Attributes:
    end: (p,) the iterate plus `direction`, to the last digit where kinks are.
    """

    direction: Tensor
    end: Tensor
    search: LineSearch
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class LBFGS(OuterMethod[LBFGSState]):
    """L-BFGS (Nocedal and Wright, Algorithm 7.5) in the inner product of the outer space.

    A pairing of a vector with a covector needs no matrix, so that the method takes one Riesz map per evaluation.
    Iteration counts do not depend on the mesh. Where the reduced objective is quadratic the steps are exact minimisers,
    and the method generates the iterates of the conjugate gradient method (Nocedal and Wright, Section 7.2) at one
    evaluation each.

    With bounds or an l1 term, the quadratic model is minimised subject to them (Schmidt, van den Berg,
    Friedlander and Murphy 2009; Lee, Sun and Saunders 2014, SIAM J. Optim. 24), which takes no evaluation. The step is
    searched along the line to this minimiser, between the bounds.

    Attributes:
        memory: number of pairs kept.
        step: length of the first trial along the negative gradient; None estimates it.
    """

    memory: int = 20
    step: float | None = None
    takes: ClassVar[frozenset[Need]] = frozenset({"l1"})
    options: ClassVar[tuple[str, ...]] = ("memory", "step")

    @property
    def extrapolates(self) -> bool:
        return True

    @classmethod
    def suited(cls, setting: Setting) -> Self:
        """The method with as many pairs as take little memory; each pair has three vectors."""
        fit = 0 if setting.space is None else _PAIRS_BYTES // (3 * 8 * setting.space.metric.matrix.shape[0])
        return cls(min(max(fit, _LEAST_PAIRS), _MOST_PAIRS))

    def init(self, space: Feasible, first: Evaluation) -> LBFGSState:
        return self._search_from(space, first, (), 0.0)

    def propose(
        self, space: Feasible, state: LBFGSState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, LBFGSState]:
        if state.search.trial == 1.0:
            return state.end, state
        return space.project(state.best.v + state.search.trial * state.direction), state

    def update(self, space: Feasible, state: LBFGSState, evaluation: Evaluation) -> LBFGSState:
        best = state.best
        if space.quadratic and evaluation.finite:
            share = _share(space, state, dot(evaluation.derivative, state.direction))
            if share is not None:
                pairs = self._remember(space, state, evaluation)
                exact = evaluation if share == 1.0 else blend_with_l1(space, best, evaluation, share)
                reached = self._search_from(space, exact, pairs, share * state.search.trial)
                return replace(reached, share=share, reduction=expected_reduction(space, best, exact))
        slope, expected = space.slope(best, evaluation, state.direction, state.search.trial)
        search = state.search.judge(evaluation.value, slope, value_noise(best, evaluation), expected)
        if search is not None and search.exhausted:
            if state.pairs:
                # Noise or a change of the active set may have spoilt the pairs: forget them once.
                scale = _scale(state.pairs)
                return replace(self._search_from(space, best, (), 0.0, scale), accepted=False)
            if search.low > 0.0 and not math.isinf(search.high):
                # A slope that becomes ever steeper never meets the curvature condition: take the longest step that
                # decreases.
                return replace(state, search=search.settled(), accepted=False)
            failure = "the line search found no acceptable step along the negative gradient"
            if math.isinf(search.high):
                failure = "the objective falls however long the step: it seems to have no lower bound"
            return replace(state, search=search, accepted=False, failure=failure)
        if search is not None:
            return replace(state, search=search, accepted=False)
        reached = self._search_from(space, evaluation, self._remember(space, state, evaluation), state.search.trial)
        return replace(reached, reduction=expected_reduction(space, best, evaluation))

    def shortened(self, state: LBFGSState, share: float) -> LBFGSState:
        return replace(state, search=state.search.shortened(share))

    def rebased(self, space: Feasible, state: LBFGSState, evaluation: Evaluation) -> LBFGSState:
        return replace(self._search_from(space, evaluation, state.pairs, state.step), reduction=state.reduction)

    def revalued(self, state: LBFGSState, value: float) -> LBFGSState:
        best, search = replace(state.best, value=value), replace(state.search, value=value)
        return replace(state, best=best, search=search)

    def _remember(self, space: Feasible, state: LBFGSState, evaluation: Evaluation) -> tuple[Pair, ...]:
        best = state.best
        step, derivative = evaluation.v - best.v, evaluation.derivative - best.derivative
        gradient = evaluation.gradient - best.gradient
        curvature, length = dot(step, derivative), space.metric.norm(step[None])
        # Leaving out pairs without curvature keeps the inverse Hessian positive definite.
        if not curvature > 1e-12 * paired_length(derivative, gradient) * length:
            return state.pairs
        return (*state.pairs, Pair(step, derivative, gradient, length / curvature * length))[-self.memory :]

    def _search_from(
        self,
        space: Feasible,
        best: Evaluation,
        pairs: tuple[Pair, ...],
        step: float,
        scale: float | None = None,
    ) -> LBFGSState:
        first = 1.0 if pairs else (scale or self.step or space.first_step(best))
        if space.smooth:
            direction = -_inverse_hessian(best, pairs, _longest if space.quadratic else _scale)
            end = best.v + direction
        else:
            # This is the curvature along the last step, not the larger one of `_scale`: where no pair has been,
            # curvature is small.
            curvature = 1.0 / (pairs[-1].radius if pairs else first)
            end = minimise_between_kinks(space, best, QuasiNewton.of(space.mass, pairs, curvature))
            direction = end - best.v
        slope = space.rate(best.derivative, best.v, end)
        if pairs and not slope < 0.0:
            return self._search_from(space, best, (), step, _scale(pairs))
        trial = first if space.smooth else 1.0
        search = LineSearch.start(best.value, slope, trial, wolfe=space.smooth)
        failure = "" if slope < 0.0 or space.smooth else "no step descends by more than rounding"
        return LBFGSState(best, direction, end, search, pairs, step=step, failure=failure)


def _share(space: Feasible, state: LBFGSState, slope: float) -> float | None:
    """The best share of a trial step, for a quadratic function and, from above, its l1 term."""
    if space.smooth:
        return exact_share(state.search.slope, slope)
    return share_between_kinks(state.search.slope, slope - dot(state.best.derivative, state.direction))


def _inverse_hessian(best: Evaluation, pairs: tuple[Pair, ...], scale: Callable[[tuple[Pair, ...]], float]) -> Tensor:
    """The two-loop recursion, applied to the gradient."""
    covector, vector = best.derivative, best.gradient
    used = []
    for pair in reversed(pairs):
        curvature = dot(pair.step, pair.derivative)
        alpha = dot(pair.step, covector) / curvature
        covector, vector = covector - alpha * pair.derivative, vector - alpha * pair.gradient
        used.append((alpha, curvature, pair))
    if pairs:
        vector = vector * scale(pairs)
    for alpha, curvature, pair in reversed(used):
        vector = vector + (alpha - dot(pair.derivative, vector) / curvature) * pair.step
    return vector


def _scale(pairs: tuple[Pair, ...]) -> float:
    """The usual first guess of the inverse Hessian, from the last pair."""
    last = pairs[-1]
    return dot(last.step, last.derivative) / dot(last.derivative, last.gradient)


def _longest(pairs: tuple[Pair, ...]) -> float:
    """The longest step along a negative gradient that agrees with the curvatures seen.

    Where steps are exact, their direction does not depend on the guess. With a long trial step, the exact step lies
    between two evaluations, where rounding errors do not grow.
    """
    return max(pair.radius for pair in pairs)
