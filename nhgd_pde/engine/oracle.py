"""Oracles: what evaluates the reduced objective and its derivative, and how well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from .bilevel import OuterProblem
from .outer.base import HessianProduct
from .outer.evaluation import Evaluation


@dataclass(frozen=True)
class Accuracy:
    """How well the next evaluation has to be solved: relative residuals of state and adjoint system."""

    state: float
    adjoint: float


class OracleState(Protocol):
    """What an oracle keeps between evaluations: at least the inner variables and the adjoint solution."""

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
    """Evaluates the reduced objective and its derivative; what makes one method differ from another."""

    @property
    def name(self) -> str: ...

    def init(self, problem: Problem, u: Tensor, v: Tensor) -> State: ...

    def evaluate(self, problem: Problem, v: Tensor, state: State, accuracy: Accuracy) -> tuple[Evaluation, State]:
        """Evaluate at v, and give the state to go on from; where the evaluation is not finite, one that is good."""
        ...


@runtime_checkable
class SecondOrderOracle(Protocol):
    """An oracle that also has second derivatives, for the outer methods that ask for them."""

    def hessian(self, problem: Any, v: Tensor, state: Any) -> HessianProduct:
        """The Hessian of Phi at v, where an evaluation has left `state`; costs nothing until it is applied."""
        ...


@runtime_checkable
class GrowingOracle(Protocol):
    """An oracle that looks at some of the scenarios first, and at more of them as the gradient becomes small."""

    def grown(self, problem: Any, state: Any, stationarity: float, first: float, goal: float) -> Any | None:
        """The state with which to evaluate the same point with more scenarios; None where these will do.

        Args:
            stationarity: of the last evaluation.
            first: of the first one.
            goal: at which the run ends.
        """
        ...


@dataclass(frozen=True)
class Unsolved:
    """The state of an oracle that could not even be set up."""

    u: Tensor
    q: Tensor | None = None
    description: str = "none"

    def blend(self, other: Unsolved, share: float) -> Unsolved:
        return other


def finite(*tensors: Tensor) -> bool:
    """Every number of every tensor is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
