"""Limited-memory BFGS in the inner product of the outer space, with bounds by projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...linalg.krylov import dot
from .base import Evaluation, Feasible, HessianProduct, blend, takes_no_constraint, takes_no_l1, value_noise
from .line_search import LineSearch, exact_share

# No step is trusted to shrink the gradient by more than this.
_LEAST_REDUCTION = 0.05


@dataclass(frozen=True)
class Pair:
    """A step (vector), the change of the derivative (covector) and of the gradient (vector) over it.

    `radius` is |step|^2 / <step, derivative>, the reciprocal of the curvature along the step.
    """

    step: Tensor
    derivative: Tensor
    gradient: Tensor
    radius: float


@dataclass(frozen=True)
class LBFGSState:
    best: Evaluation
    direction: Tensor
    search: LineSearch
    pairs: tuple[Pair, ...] = ()
    accepted: bool = True
    step: float = 0.0
    share: float = 1.0
    failure: str = ""
    reduction: float = 1.0


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS (Nocedal and Wright, Algorithm 7.5), every inner product that of the outer space.

    A pairing of a vector with a covector needs no matrix, so that one Riesz map an evaluation is all it
    costs; iteration counts do not depend on the mesh. With bounds, directions are taken in the free variables
    and steps projected. Where the reduced objective is quadratic the steps are exact minimisers, and the
    method generates the iterates of the conjugate gradient method (Nocedal and Wright, Section 7.2) at one
    evaluation each.

    Attributes:
        memory: pairs kept.
        step: length of the first trial along the negative gradient; None estimates it.
    """

    memory: int = 20
    step: float | None = None
    second_order: ClassVar[bool] = False

    def objection(self, space: Feasible) -> str:
        return takes_no_constraint(space) or takes_no_l1(space)

    def init(self, space: Feasible, first: Evaluation) -> LBFGSState:
        return self._search_from(space, first, (), 0.0)

    def propose(
        self, space: Feasible, state: LBFGSState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, LBFGSState]:
        return space.project(state.best.v + state.search.trial * state.direction), state

    def update(self, space: Feasible, state: LBFGSState, evaluation: Evaluation) -> LBFGSState:
        best = state.best
        moved = evaluation.v - best.v
        slope = dot(evaluation.derivative, state.direction)
        if space.quadratic and evaluation.finite:
            share = exact_share(state.search.slope, slope)
            if share is not None:
                pairs = self._remember(space, state, evaluation)
                exact = blend(best, evaluation, share)
                reached = self._search_from(space, exact, pairs, share * state.search.trial)
                return replace(reached, share=share, reduction=_reduction(space, best, exact))
        expected = None
        if space.bounds is not None:
            slope = dot(evaluation.derivative, moved) / state.search.trial
            expected = dot(best.derivative, moved)
        search = state.search.judge(evaluation.value, slope, value_noise(best, evaluation), expected)
        if search is not None and search.exhausted:
            if state.pairs:
                # Pairs may be spoilt (by noise, or by a change of the active set): forget them once.
                scale = _scale(state.pairs)
                return replace(self._search_from(space, best, (), 0.0, scale), accepted=False)
            failure = "the line search found no acceptable step along the negative gradient"
            return replace(state, search=search, accepted=False, failure=failure)
        if search is not None:
            return replace(state, search=search, accepted=False)
        reached = self._search_from(space, evaluation, self._remember(space, state, evaluation), state.search.trial)
        return replace(reached, reduction=_reduction(space, best, evaluation))

    def revalued(self, state: LBFGSState, value: float) -> LBFGSState:
        best, search = replace(state.best, value=value), replace(state.search, value=value)
        return replace(state, best=best, search=search)

    def _remember(self, space: Feasible, state: LBFGSState, evaluation: Evaluation) -> tuple[Pair, ...]:
        best = state.best
        step, derivative = evaluation.v - best.v, evaluation.derivative - best.derivative
        gradient = evaluation.gradient - best.gradient
        curvature, length = dot(step, derivative), space.metric.norm(step[None])
        # Leaving out pairs without curvature keeps the inverse Hessian positive definite.
        if curvature <= 1e-12 * max(dot(derivative, gradient), 0.0) ** 0.5 * length:
            return state.pairs
        return (*state.pairs, Pair(step, derivative, gradient, length**2 / curvature))[-self.memory :]

    def _search_from(
        self,
        space: Feasible,
        best: Evaluation,
        pairs: tuple[Pair, ...],
        step: float,
        scale: float | None = None,
    ) -> LBFGSState:
        free = space.free(best.v, best.derivative)
        scale_of = _longest if space.quadratic else _scale
        direction = -_inverse_hessian(best, pairs, free, scale_of)
        slope = dot(best.derivative, direction)
        if pairs and not slope < 0.0:
            return self._search_from(space, best, (), step, _scale(pairs))
        trial = 1.0 if pairs else (scale or self.step or space.first_step(best))
        search = LineSearch.start(best.value, slope, trial, wolfe=space.bounds is None)
        return LBFGSState(best, direction, search, pairs, True, step)


def _reduction(space: Feasible, before: Evaluation, after: Evaluation) -> float:
    """What the next step may be expected to leave of the gradient: as much as the last one did.

    An error of a few per cent of the gradient now would be most of it after a step as good as that.
    """
    return min(max(space.stationarity(after) / space.stationarity(before), _LEAST_REDUCTION), 1.0)


def _inverse_hessian(
    best: Evaluation, pairs: tuple[Pair, ...], free: Tensor | None, scale: Callable[[tuple[Pair, ...]], float]
) -> Tensor:
    """The two-loop recursion, applied to the gradient, in the free variables."""

    def masked(x: Tensor) -> Tensor:
        return x if free is None else torch.where(free, x, 0.0)

    covector, vector = masked(best.derivative), masked(best.gradient)
    used = []
    for pair in reversed(pairs):
        step, derivative, gradient = masked(pair.step), masked(pair.derivative), masked(pair.gradient)
        curvature = dot(step, derivative)
        if curvature <= 0.0:
            continue
        alpha = dot(step, covector) / curvature
        covector, vector = covector - alpha * derivative, vector - alpha * gradient
        used.append((alpha, curvature, step, derivative))
    if pairs:
        vector = vector * scale(pairs)
    for alpha, curvature, step, derivative in reversed(used):
        vector = vector + (alpha - dot(derivative, vector) / curvature) * step
    return vector


def _scale(pairs: tuple[Pair, ...]) -> float:
    """The usual first guess of the inverse Hessian, from the last pair."""
    last = pairs[-1]
    return dot(last.step, last.derivative) / dot(last.derivative, last.gradient)


def _longest(pairs: tuple[Pair, ...]) -> float:
    """The longest step along a negative gradient that any curvature seen calls for.

    Where steps are exact their direction does not depend on the guess. A long one makes the exact step a part
    of the trial step, between two evaluations, where rounding errors do not grow.
    """
    return max(pair.radius for pair in pairs)
