"""The interface of outer methods, and the feasible set they move in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ...linalg.krylov import dot
from ...linalg.riesz import RieszMap

# A direction (p,) -> the product (p,), a covector, of the Hessian of Phi with it.
HessianProduct = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """The reduced objective at one outer point.

    Attributes:
        v: (p,) the point.
        value: Phi(v).
        derivative: (p,) the hypergradient, a covector.
        gradient: (p,) its Riesz representative.
        state_error, adjoint_error: certificates, relative.
        sensitivity: estimate of the norm of the gradient's error for a relative error of one in state or
            adjoint.
        inner_steps, refinement_steps: work done.
        message: a sentence on what went wrong, if anything did.
        warning: a sentence on what makes the result worse than it need be.
        blended: not evaluated here, but known from two evaluations of a quadratic function.
    """

    v: Tensor
    value: float
    derivative: Tensor
    gradient: Tensor
    state_error: float
    adjoint_error: float
    sensitivity: float
    inner_steps: int = 0
    refinement_steps: int = 0
    message: str = ""
    warning: str = ""
    blended: bool = False

    @property
    def gradient_error(self) -> float:
        """Estimate of the norm of the error that the certificates leave in the gradient."""
        return self.sensitivity * (self.state_error + self.adjoint_error)

    @property
    def finite(self) -> bool:
        numbers = torch.tensor([self.value, self.state_error, self.adjoint_error])
        return bool(torch.isfinite(numbers).all() and torch.isfinite(self.gradient).all())


def blend(a: Evaluation, b: Evaluation, share: float) -> Evaluation:
    """The evaluation at a.v + share (b.v - a.v) of a quadratic function that was evaluated at both ends.

    Its derivative is affine, and so are the residuals behind the certificates, which add up at worst.
    """
    start, end = dot(a.derivative, b.v - a.v), dot(b.derivative, b.v - a.v)
    near, far = abs(1.0 - share), abs(share)
    return Evaluation(
        v=a.v + share * (b.v - a.v),
        value=a.value + share * start + 0.5 * share**2 * (end - start),
        derivative=a.derivative + share * (b.derivative - a.derivative),
        gradient=a.gradient + share * (b.gradient - a.gradient),
        state_error=near * a.state_error + far * b.state_error,
        adjoint_error=near * a.adjoint_error + far * b.adjoint_error,
        sensitivity=max(a.sensitivity, b.sensitivity),
        inner_steps=b.inner_steps,
        refinement_steps=b.refinement_steps,
        message=b.message,
        warning=b.warning,
        blended=True,
    )


def failed_evaluation(v: Tensor, message: str) -> Evaluation:
    """What an oracle returns where the inner problem could not be solved: a step that was too long."""
    nan = float("nan")
    nothing = torch.full_like(v, nan)
    return Evaluation(v, nan, nothing, nothing, nan, nan, nan, message=message)


def value_noise(a: Evaluation, b: Evaluation) -> float:
    """How far the difference of two values may be off: rounding, and the error of the inner solutions.

    A sum with cancellation is known less well than its own last digit; 1e-9 of the value allows for seven
    digits lost (Hager and Zhang 2005 allow 1e-6).
    """
    relative = 1e-9 + 2.0 * min(a.state_error + b.state_error, 0.1)
    return relative * max(abs(a.value), abs(b.value))


class FreeMetric(Protocol):
    def gradient(self, derivative: Tensor, free: Tensor) -> Tensor:
        """The vector (p,) of some free variables that represents a covector there, zero in the others."""
        ...


@dataclass(frozen=True)
class Feasible:
    """The outer space: its inner product, and bounds where there are any.

    With bounds the inner product must be diagonal, so that clipping node by node is the projection in it.

    Attributes:
        metric: the inner product.
        bounds: lower and upper (p,).
        free_metric: the inner product in which directions between the bounds are taken; None: `metric` too. Steps are
            projected in `metric` all the same (the two-metric projection of Bertsekas 1982).
        quadratic: without bounds, the reduced objective is a quadratic function, so that between two
            evaluations everything is known.
    """

    metric: RieszMap
    bounds: tuple[Tensor, Tensor] | None = None
    quadratic: bool = False
    free_metric: FreeMetric | None = None

    def __post_init__(self) -> None:
        if self.bounds is not None and not self.metric.diagonal:
            raise ValueError("bounds need a diagonal inner product in the outer space")

    def first_step(self, first: Evaluation, slope: float | None = None) -> float:
        """Length of a first trial along the negative gradient, as a multiple of it; of another direction with a slope.

        It goes to the minimum of a quadratic if that is zero, exact for a least-squares fit in one mode; but not
        further than v is long, because near an optimum with a value above zero that is far too far.
        """
        squared = dot(first.derivative, first.gradient) if slope is None else -slope
        if first.value == 0.0 or not squared > 0.0:
            return 1.0
        step = 2.0 * abs(first.value) / squared
        length = self.metric.norm(first.v[None])
        return step if self.quadratic or length == 0.0 else min(step, length / squared**0.5)

    def project(self, v: Tensor) -> Tensor:
        if self.bounds is None:
            return v
        return torch.minimum(torch.maximum(v, self.bounds[0]), self.bounds[1])

    def free(self, v: Tensor, derivative: Tensor) -> Tensor | None:
        """Where a descent step may move: not at a bound with the descent pointing out. None: everywhere."""
        if self.bounds is None:
            return None
        lower, upper = self.bounds
        return ~(((v <= lower) & (derivative > 0.0)) | ((v >= upper) & (derivative < 0.0)))

    def stationarity(self, evaluation: Evaluation) -> float:
        """Norm of the gradient, or with bounds of v - P(v - gradient)."""
        if self.bounds is None:
            return max(dot(evaluation.derivative, evaluation.gradient), 0.0) ** 0.5
        step = evaluation.v - self.project(evaluation.v - evaluation.gradient)
        return self.metric.norm(step[None])


class OuterState(Protocol):
    """What an outer method knows.

    Attributes:
        best: the current iterate: the last evaluation that was accepted.
        accepted: the evaluation last told became the current iterate.
        step: length of the last accepted step, as a multiple of the direction.
        share: the iterate is this share of the way from the previous one to the point last evaluated; 1
            unless the objective is quadratic.
        failure: a sentence once the method cannot go on.
        reduction: the factor by which the proposed step is meant to shrink the gradient; 1 where the method
            does not know.
    """

    @property
    def best(self) -> Evaluation: ...
    @property
    def accepted(self) -> bool: ...
    @property
    def step(self) -> float: ...
    @property
    def share(self) -> float: ...
    @property
    def failure(self) -> str: ...
    @property
    def reduction(self) -> float: ...


State = TypeVar("State", bound=OuterState)


class OuterMethod(Protocol[State]):
    """Frozen options; `init`, `propose` and `update` make states, which are never changed.

    Attributes:
        second_order: `propose` needs products with the Hessian.
    """

    @property
    def second_order(self) -> bool: ...

    def init(self, space: Feasible, first: Evaluation) -> State: ...

    def propose(self, space: Feasible, state: State, hessian: HessianProduct | None = None) -> tuple[Tensor, State]:
        """The point (p,) to evaluate next; `hessian` is that of the reduced objective at `state.best`."""
        ...

    def update(self, space: Feasible, state: State, evaluation: Evaluation) -> State:
        """Take in the evaluation at the proposed point."""
        ...

    def revalued(self, state: State, value: float) -> State:
        """The state with another value of its blended iterate: the one that its inner variables give."""
        ...
