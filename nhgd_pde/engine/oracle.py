"""Oracles, which evaluate the reduced objective and its derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from .bilevel import OuterProblem
from .outer.base import HessianProduct
from .outer.reduced_objective import Evaluation


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of the next evaluation: relative residuals of state and adjoint system."""

    state: float
    adjoint: float


class OracleState(Protocol):
    """The data that an oracle keeps between evaluations: at least inner variables and adjoint solution."""

    @property
    def u(self) -> Tensor: ...
    @property
    def q(self) -> Tensor | None: ...
    @property
    def description(self) -> str: ...

    def blend(self, other: Self, share: float) -> Self:
        """The state at self + share (other - self), where u* and the adjoint are affine in v."""
        ...


Problem = TypeVar("Problem", bound=OuterProblem, contravariant=True)
State = TypeVar("State", bound=OracleState)


class Oracle(Protocol[Problem, State]):
    """Evaluates the reduced objective and its derivative; methods differ in their oracles."""

    @property
    def name(self) -> str: ...

    def init(self, problem: Problem, u: Tensor, v: Tensor) -> State: ...

    def evaluate(self, problem: Problem, v: Tensor, state: State, accuracy: Accuracy) -> tuple[Evaluation, State]:
        """The evaluation at v, and the state to go on from, which is usable even if the evaluation is not finite."""
        ...


@runtime_checkable
class SecondOrderOracle(Protocol):
    """An oracle that also has second derivatives, for the outer methods that ask for them."""

    def hessian(self, problem: Any, v: Tensor, state: Any) -> HessianProduct:
        """The Hessian of Phi at v, where an evaluation has left `state`; costs nothing until it is applied."""
        ...


@dataclass(frozen=True)
class Response:
    """What a change d of v changes, where u* and the adjoint variable are affine in v and Phi is quadratic.

    Attributes:
        state, adjoint: (S, n) the changes of u* and of the adjoint variable.
        product: (p,) the change of the derivative, which is the product of the Hessian with d.
        represented: (p,) its Riesz representative, the change of the gradient.
    """

    state: Tensor
    adjoint: Tensor
    product: Tensor
    represented: Tensor


@runtime_checkable
class AffineOracle(Protocol):
    """An oracle that can follow a step of a quadratic problem without an evaluation."""

    @property
    def follows(self) -> bool:
        """Whether an evaluation after the step would find the same, up to the tolerance of its solves."""
        ...

    def response(self, problem: Any, v: Tensor, state: Any, direction: Tensor, tolerance: float) -> Response:
        """The response at v to a direction (p,); NaN where a linear system could not be solved.

        Args:
            tolerance: relative error that the linear systems may have, if they are not solved by factors.
        """
        ...

    def moved(self, state: Any, response: Response, share: float) -> Any:
        """The state after a step of a share of the direction."""
        ...


@runtime_checkable
class GrowingOracle(Protocol):
    """An oracle that uses some of the scenarios first, and more of them as the gradient becomes small."""

    def grown(self, problem: Any, state: Any, stationarity: float, first: float, goal: float) -> Any | None:
        """The state to evaluate the same point with more scenarios; None where those in use are enough.

        Args:
            stationarity: norm of the gradient of the last evaluation.
            first: norm of the gradient of the first evaluation.
            goal: norm of the gradient at which the run ends.
        """
        ...


@dataclass(frozen=True)
class Unsolved:
    """The state of an oracle that could not be set up, or that is not needed any more."""

    u: Tensor
    q: Tensor | None = None
    description: str = "none"

    def blend(self, other: Unsolved, share: float) -> Unsolved:
        return other


def blended(a: Tensor | None, b: Tensor | None, share: float) -> Tensor | None:
    """a + share (b - a); b where one of them is not known."""
    return b if a is None or b is None else torch.lerp(a, b, share)


def finite(*tensors: Tensor) -> bool:
    """Whether every number of every tensor is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
