"""Conjugate gradients for a quadratic reduced objective, in the inner product of the outer space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from ...linalg.safe_lengths import dot
from .base import Feasible, HessianProduct, OuterMethod, OuterState, Setting
from .reduced_objective import Evaluation

# Smallest and largest default number of gradients kept, and the memory in bytes that they may take beyond the smallest.
_LEAST_KEPT, _MOST_KEPT = 20, 100
_KEPT_BYTES = 512 * 2**20
# Gradients that are orthogonal up to the square root of the rounding unit are as good as orthogonal ones (Simon 1984,
# Linear Algebra Appl. 61).
_ORTHOGONAL = 1e-9
# Steps since the last evaluation have led nowhere where the gradient is not below this share of what it was there, and
# the value has not fallen by more than this share of itself, which may be rounding errors.
_LEAST_PROGRESS, _LEAST_FALL = 0.5, 1e-9
# The slope along a direction is minus the square of the gradient's norm. The recurrences have lost the gradient where
# it differs by more than this factor.
_LOST = 2.0

_UNBOUNDED = "the objective has no positive curvature along a direction: it seems to have no lower bound"
_NO_PROGRESS = "rounding errors of the gradient leave no further progress"


@dataclass(frozen=True)
class ConjugateState(OuterState):
    """Attributes:
    direction: (p,) the direction of the next step.
    evaluated: norm of the gradient where it was last evaluated, and not updated.
    height: the value there.
    units: (p,) each, the gradients passed since then, of length one.
    """

    direction: Tensor
    evaluated: float
    height: float
    units: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class ConjugateGradient(OuterMethod[ConjugateState]):
    """Conjugate gradients for Phi'' d = -h (Hestenes and Stiefel 1952), one step an outer iteration.

    A step takes one product with the Hessian and no evaluation: value, derivative and gradient at its end follow from
    those at its start. New gradients are made orthogonal to those passed, which finite precision would lose, so that
    the number of steps is that of exact arithmetic.

    Attributes:
        memory: number of gradients kept for this.
    """

    memory: int = _LEAST_KEPT
    options: ClassVar[tuple[str, ...]] = ("memory",)

    @property
    def exact(self) -> bool:
        return True

    @classmethod
    def suited(cls, setting: Setting) -> Self:
        """The method with as many gradients as take little memory."""
        fit = 0 if setting.space is None else _KEPT_BYTES // (8 * setting.space.metric.matrix.shape[0])
        return cls(min(max(fit, _LEAST_KEPT), _MOST_KEPT))

    def objection(self, space: Feasible) -> str:
        if space.quadratic and space.smooth:
            return ""
        return "expected another method: conjugate_gradient takes quadratic objectives without bounds"

    def init(self, space: Feasible, first: Evaluation) -> ConjugateState:
        norm = space.stationarity(first)
        return ConjugateState(first, direction=-first.gradient, evaluated=norm, height=first.value)

    def propose(
        self, space: Feasible, state: ConjugateState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, ConjugateState]:
        return state.best.v + state.direction, state

    def direction(self, state: ConjugateState) -> Tensor:
        return state.direction

    def answered(self, space: Feasible, state: ConjugateState, product: Tensor, represented: Tensor) -> ConjugateState:
        best, d = state.best, state.direction
        slope, curvature = dot(best.derivative, d), dot(product, d)
        if not curvature > 0.0:
            if state.units:
                # After some steps rounding errors may be all that is left of a direction.
                return replace(state, accepted=False, direction=-best.gradient, units=())
            return replace(state, accepted=False, failure=_UNBOUNDED)
        share = -slope / curvature
        derivative = best.derivative + share * product
        gradient = best.gradient + share * represented
        units = self._kept(space, state)
        derivative, gradient = _orthogonal(space, units, derivative, gradient)
        # The scalar products are those of the gradients with themselves: the last one is that with the direction.
        square = dot(derivative, gradient)
        ratio = square / -slope if slope else 0.0
        ahead = square - ratio * dot(derivative, d)
        reached = replace(
            best,
            v=best.v + share * d,
            value=best.value + share * (slope + 0.5 * share * curvature),
            derivative=derivative,
            gradient=gradient,
            inner_steps=1,
            refinement_steps=1,
            blended=True,
            measured=False,
        )
        return replace(
            state,
            best=reached,
            accepted=True,
            step=share,
            # The loop then evaluates the iterate.
            failure="" if square <= _LOST * ahead <= _LOST**2 * square else _NO_PROGRESS,
            direction=ratio * d - gradient,
            units=units,
        )

    def corrected(self, space: Feasible, state: ConjugateState, evaluation: Evaluation) -> ConjugateState:
        """Start anew from the evaluation of an iterate; the method fails where it shows that the steps lead nowhere."""
        begun = self.init(space, evaluation)
        fallen = state.height - evaluation.value > _LEAST_FALL * abs(state.height)
        if fallen or begun.evaluated <= _LEAST_PROGRESS * state.evaluated:
            return begun
        return replace(begun, failure=_NO_PROGRESS)

    def _kept(self, space: Feasible, state: ConjugateState) -> tuple[Tensor, ...]:
        """The gradients of length one, with that of the iterate."""
        norm = state.best.norm
        if not norm > 0.0:
            return state.units
        return (*state.units, state.best.gradient / norm)[-self.memory :]


def _orthogonal(
    space: Feasible, units: tuple[Tensor, ...], derivative: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """A derivative and its gradient without their components along vectors of length one."""
    shares = [dot(derivative, each) for each in units]
    square = dot(derivative, gradient)
    if all(share * share <= _ORTHOGONAL**2 * square for share in shares):
        return derivative, gradient
    excess = shares[0] * units[0]
    for share, unit in zip(shares[1:], units[1:], strict=True):
        excess = excess.add(unit, alpha=share)
    return derivative - space.metric.covector(excess[None])[0], gradient - excess
