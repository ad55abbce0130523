"""Newton-CG in the inner product of the outer space, between bounds and with an l1 term where there are any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from .base import Feasible, HessianProduct, Need, OuterMethod, OuterState
from .line_search import LineSearch, exact_share
from .quadratic_model import minimise_model
from .reduced_objective import Evaluation, blend, value_noise
from .secant import CorrectedHessian, Secant

# Products with the Hessian are solutions of linear systems, with relative errors of about this size.
_LEAST_FORCING = 1e-8
# Above this forcing term the last step has reduced the gradient by less than a factor of ten: the optimum is far.
_FAR = 0.9 * 0.1**2
# The next three numbers belong to a Hessian that is known roughly, such as that of the nominal scenario: the largest
# and smallest forcing term, and the number of steps whose secants correct it.
_ROUGH_FORCING, _LEAST_ROUGH_FORCING = 0.05, 0.02
_SECANTS = 20


@dataclass(frozen=True)
class NewtonState(OuterState):
    """Attributes:
    search: along `direction`; None until the Hessian at `best` has been seen.
    end: (p,) the iterate plus `direction`, to the last digit where kinks are.
    forcing: relative residual of the Newton system that the next direction may leave.
    reduction: the relative residual that `direction` has left.
    gradient_norm: norm of the gradient at the iterate.
    plain: `direction` is the negative gradient.
    secants: the secants of the last steps, the oldest first.
    product: (p,) of the Hessian given at the iterate with the way to `end`; None unless secants are kept.
    """

    forcing: float
    gradient_norm: float
    direction: Tensor
    end: Tensor
    search: LineSearch | None = None
    plain: bool = False
    secants: tuple[Secant, ...] = ()
    product: Tensor | None = None


@dataclass(frozen=True)
class NewtonCG(OuterMethod[NewtonState]):
    """Newton's method with truncated conjugate gradients (Nocedal and Wright, Algorithm 7.1).

    The conjugate gradients are preconditioned by the Riesz map, so that their number does not depend on the
    mesh. They end at the forcing term 0.9 (|g_k| / |g_k-1|)^2 (Eisenstat and Walker 1996, choice 2), which
    makes the convergence quadratic, or at a direction of negative curvature: with the direction found by then, or the
    negative gradient. As long as a step reduces the gradient by less than a factor of ten, the Gauss-Newton part of the
    Hessian takes its place, as in hIPPYlib (Villa, Petra and Ghattas 2021, ACM Trans. Math. Softw. 47): the second
    derivatives of the equation, times an adjoint variable that is still large, make the Hessian indefinite and Newton
    steps short. The same part helps where the Hessian has a direction of negative curvature later.

    With bounds or an l1 term, the quadratic model is minimised subject to them. So the free variables are those of the
    next iterate; with those of the last one, steps would be shortened at every new bound.

    Attributes:
        step: first trial along a negative gradient; None estimates it. A Newton step is tried in full.
        forcing: the largest forcing term.
        iterations: largest number of products with the Hessian per direction.
        least: the smallest forcing term; small ones are of no use with a Hessian that is known roughly.
        memory: number of steps whose secants correct a Hessian that is known roughly.
    """

    step: float | None = None
    forcing: float = 0.1
    iterations: int = 500
    least: float = _LEAST_FORCING
    memory: int = 0
    takes: ClassVar[frozenset[Need]] = frozenset({"l1"})
    options: ClassVar[tuple[str, ...]] = ("step",)

    @property
    def second_order(self) -> bool:
        return True

    def with_rough_hessian(self) -> Self:
        return replace(self, forcing=_ROUGH_FORCING, least=_LEAST_ROUGH_FORCING, memory=_SECANTS)

    def init(self, space: Feasible, first: Evaluation) -> NewtonState:
        zero = torch.zeros_like(first.v)
        return NewtonState(first, self.forcing, space.stationarity(first), zero, first.v, reduction=self.forcing)

    def near(self, state: NewtonState) -> NewtonState:
        # The Gauss-Newton part alone would make convergence linear, and never reduce the gradient by a factor of ten.
        return replace(state, forcing=min(state.forcing, _FAR))

    def propose(
        self, space: Feasible, state: NewtonState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, NewtonState]:
        if state.search is None:
            if hessian is None:
                raise ValueError("Newton's method needs an oracle with products with the Hessian")
            state = self._directed(space, state, hessian)
        assert state.search is not None
        if state.search.trial == 1.0:
            return state.end, state
        return space.project(state.best.v + state.search.trial * state.direction), state

    def update(self, space: Feasible, state: NewtonState, evaluation: Evaluation) -> NewtonState:
        assert state.search is not None
        best, trial = state.best, state.search.trial
        slope, expected = space.slope(best, evaluation, state.direction, trial)
        exact = self._exact(space, state, evaluation, slope)
        if exact is not None:
            return exact
        search = state.search.judge(evaluation.value, slope, value_noise(best, evaluation), expected)
        if search is None:
            return self._reached(space, state, evaluation, evaluation, 1.0)
        if not search.exhausted:
            return replace(state, search=search, accepted=False)
        if not state.plain:
            return replace(self._downhill(space, state), accepted=False)
        failure = "the line search found no acceptable step along the negative gradient"
        return replace(state, search=search, accepted=False, failure=failure)

    def _exact(self, space: Feasible, state: NewtonState, evaluation: Evaluation, slope: float) -> NewtonState | None:
        """The minimiser of a quadratic function along a step made with a rough Hessian, from the data at both ends."""
        if not (self.memory and space.quadratic and space.smooth and evaluation.finite):
            return None
        assert state.search is not None
        share = exact_share(state.search.slope, slope)
        if share is None:
            return None
        exact = evaluation if share == 1.0 else blend(state.best, evaluation, share)
        return self._reached(space, state, evaluation, exact, share)

    def _reached(
        self, space: Feasible, state: NewtonState, evaluation: Evaluation, end: Evaluation, share: float
    ) -> NewtonState:
        """The state at a share of the step to the evaluation."""
        assert state.search is not None
        norm = space.stationarity(end)
        ratio = norm / state.gradient_norm if state.gradient_norm > 0.0 else 0.0
        return NewtonState(
            best=end,
            forcing=min(max(0.9 * ratio**2, self.least), self.forcing),
            gradient_norm=norm,
            direction=torch.zeros_like(end.v),
            end=end.v,
            step=share * state.search.trial,
            share=share,
            secants=self._remembered(state, evaluation),
            reduction=max(ratio, self.least) if self.memory else 1.0,
        )

    def shortened(self, state: NewtonState, share: float) -> NewtonState:
        return state if state.search is None else replace(state, search=state.search.shortened(share))

    def rebased(self, space: Feasible, state: NewtonState, evaluation: Evaluation) -> NewtonState:
        norm, zero = space.stationarity(evaluation), torch.zeros_like(evaluation.v)
        return replace(state, best=evaluation, gradient_norm=norm, direction=zero, search=None)

    def _remembered(self, state: NewtonState, evaluation: Evaluation) -> tuple[Secant, ...]:
        """The secants, with the one of the step to an evaluation if its product with the Hessian is known."""
        step = evaluation.v - state.best.v
        length = float(torch.linalg.vector_norm(state.direction))
        if state.product is None or length == 0.0:
            return state.secants
        # The step is a share of the direction, up to rounding, unless it was projected.
        share = float(torch.linalg.vector_norm(step)) / length
        secant = Secant(step, evaluation.derivative - state.best.derivative, share * state.product)
        return (*state.secants, secant)[-self.memory :]

    def _directed(self, space: Feasible, state: NewtonState, hessian: HessianProduct) -> NewtonState:
        corrected = CorrectedHessian.of(hessian, state.secants) if state.secants else hessian
        far = state.forcing > _FAR and not self.memory
        model = minimise_model(space, state.best, corrected, state.forcing, self.iterations, far)
        direction = model.end - state.best.v
        product = hessian(direction) if self.memory else None
        slope = space.rate(state.best.derivative, state.best.v, model.end)
        if not slope < 0.0:
            return self._downhill(space, state)
        search = LineSearch.start(state.best.value, slope, 1.0, wolfe=space.smooth)
        return replace(
            state,
            direction=direction,
            end=model.end,
            search=search,
            plain=False,
            # The reduction in a rough model is better than the real one.
            reduction=max(model.reduction, state.reduction) if self.memory else model.reduction,
            product=product,
        )

    def _downhill(self, space: Feasible, state: NewtonState) -> NewtonState:
        """A search along the negative gradient, or towards the point of the proximal gradient method."""
        best = state.best
        trial = self.step or space.first_step(best)
        direction = -best.gradient
        if not space.smooth:
            direction = space.prox(best.v - trial * best.gradient, trial) - best.v
            trial = 1.0
        end = best.v + direction
        search = LineSearch.start(best.value, space.rate(best.derivative, best.v, end), trial, wolfe=space.smooth)
        return replace(state, direction=direction, end=end, search=search, plain=True, reduction=1.0, product=None)
