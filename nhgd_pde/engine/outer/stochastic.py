"""Stochastic approximation: steps along estimates of the gradient, every one of them taken, with no line search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ...linalg.safe_lengths import dot
from .base import Feasible, HessianProduct, Need, OuterMethod, OuterState
from .quadratic_model import minimise_model
from .reduced_objective import Evaluation

# The steps are too long where the gradient has grown by this factor.
_DIVERGED = 1e2
# A failed evaluation is repeated with a shorter step, at most this many times, by this factor each time.
_MOST_RETREATS = 6
_RETREAT = 0.25
# Weight of the earlier secants at every step.
_MEMORY = 0.9
# Smallest and largest fraction of the model step after the first one: estimates of other scenarios lag one iterate.
_SHORTEST = 0.02
_LONGEST = 0.7
# The first plain step is this share of the first trial of a line search.
_CAUTION = 0.05


@dataclass(frozen=True)
class StochasticState(OuterState):
    """Attributes:
    scale: a norm that gradients have at a start.
    taken: number of steps.
    unit: the length of the step before the rule shortens it.
    modelled, measured: weighted sums over the steps of d . H d, by the model and by changes of gradients.
    end: (p,) the proposal before it is shortened; None until the model has been minimised.
    slope: slope of the objective along the step to it.
    retreats: number of failed evaluations at this iterate.
    """

    scale: float
    taken: int
    unit: float
    modelled: float = 0.0
    measured: float = 0.0
    end: Tensor | None = None
    slope: float = 0.0
    retreats: int = 0


@dataclass(frozen=True)
class StochasticApproximation(OuterMethod[StochasticState]):
    """v+ = v + a / (k + k0)^gamma d, k = 0, 1, ... (Robbins and Monro 1951).

    d is the minimiser of the quadratic model with the Hessian that the oracle has, that of the nominal scenario
    (natural), or the negative gradient in the inner product of the outer space (plain); with bounds and an l1 term, the
    step of the model between them or of the proximal gradient method.

    Attributes:
        natural: take the minimiser of the model.
        step: a. None: for the natural direction 1 at first, then at most 0.7, and less where secants show more
            curvature than the model; for the plain one a twentieth of the first trial of a line search.
        shift, power: k0 and gamma; a constant step with gamma = 0.
        forcing: relative residual of the model's minimiser.
        iterations: largest number of products with the Hessian per direction.
    """

    natural: bool = True
    step: float | None = None
    shift: float = 1.0
    power: float = 0.0
    forcing: float = 0.1
    iterations: int = 50
    takes: ClassVar[frozenset[Need]] = frozenset({"l1"})

    @property
    def second_order(self) -> bool:
        return self.natural

    def init(self, space: Feasible, first: Evaluation) -> StochasticState:
        unit = self.step
        if unit is None:
            unit = 1.0 if self.natural else _CAUTION * space.first_step(first)
            unit *= self.shift**self.power
        return StochasticState(first, max(space.stationarity(first), first.sampling_error), 0, unit)

    def propose(
        self, space: Feasible, state: StochasticState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, StochasticState]:
        best, length = state.best, self._rule(state)
        if not self.natural:
            length *= _RETREAT**state.retreats
            return space.prox(best.v - length * best.gradient, length), state
        if state.end is None:
            if hessian is None:
                raise ValueError("the natural direction needs an oracle with products with the Hessian")
            given = hessian

            def shorter(d: Tensor) -> Tensor:
                # The minimiser then is the end of the step, with variables exactly at bounds and zeros.
                return given(d) / length

            end = minimise_model(space, best, shorter, self.forcing, self.iterations).end
            slope = space.rate(best.derivative, best.v, end)
            if not slope < 0.0:
                # The model has no positive curvature, or nothing is left to gain.
                trial = _CAUTION * space.first_step(best)
                end = space.prox(best.v - trial * best.gradient, trial)
            state = replace(state, end=end, slope=slope)
        assert state.end is not None
        if not state.retreats:
            return state.end, state
        return space.project(best.v + _RETREAT**state.retreats * (state.end - best.v)), state

    def update(self, space: Feasible, state: StochasticState, evaluation: Evaluation) -> StochasticState:
        if not evaluation.finite:
            failure = ""
            if state.retreats == _MOST_RETREATS:
                failure = f"steps down to {self._length(state):.1e} of the direction cannot be evaluated"
            return replace(state, accepted=False, retreats=state.retreats + 1, failure=failure)
        length, failure = self._length(state), ""
        norm = space.stationarity(evaluation)
        if norm > _DIVERGED * state.scale > 0.0:
            failure = (
                f"the steps diverge: the gradient has grown by {norm / state.scale:.0e} with a step of {length:.1e}; "
                "take a smaller one, or more scenarios at a time"
            )
        reached = StochasticState(evaluation, state.scale, state.taken + 1, state.unit, step=length, failure=failure)
        return self._learnt(state, reached, length) if self.natural and self.step is None else reached

    def _learnt(self, state: StochasticState, reached: StochasticState, length: float) -> StochasticState:
        """The state with the unit that the secants suggest.

        Along a model's minimiser with a step t, d . H d = - t slope. Where the mean of all scenarios has more curvature
        than the nominal one, or errors of the estimates add to the changes of gradients, steps have to be shorter.
        """
        moved = dot(reached.best.derivative - state.best.derivative, reached.best.v - state.best.v)
        share = _RETREAT**state.retreats
        modelled = _MEMORY * state.modelled - share * length * min(state.slope, 0.0)
        measured = _MEMORY * state.measured + moved
        unit = min(max(modelled / measured, _SHORTEST), _LONGEST) if measured > 0.0 else _LONGEST
        return replace(reached, modelled=modelled, measured=measured, unit=unit * self.shift**self.power)

    def rebased(self, space: Feasible, state: StochasticState, evaluation: Evaluation) -> StochasticState:
        return replace(state, best=evaluation, end=None)

    def _rule(self, state: StochasticState) -> float:
        return state.unit / (state.taken + self.shift) ** self.power

    def _length(self, state: StochasticState) -> float:
        return self._rule(state) * _RETREAT**state.retreats
