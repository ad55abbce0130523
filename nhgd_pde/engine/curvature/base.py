"""What the engine asks of an EFIM-inverse backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ..bilevel import BilevelProblem


class CurvatureState(Protocol):
    """The inverse A as it stands."""

    def solve(self, g: Tensor) -> Tensor: ...
    def estimate(self, g: Tensor) -> Tensor: ...

    @property
    def trust(self) -> float:
        """In [0, 1]: the share of a natural-gradient step that sampling errors leave stable; 0: none yet.

        Where the eigenvalues of trust A F are at most one, the step m / (m + d + 1) with m Gaussian scores s
        contracts the error e in mean square: in coordinates in which F = I, with M = trust A,

            E (I - eta M W)^T M^-1 (I - eta M W) = M^-1 - 2 eta I + eta^2 ((m + 1) M + tr M I) / m,

        W the mean of the m outer products, which is at most M^-1 - eta I.
        """
        ...

    @property
    def description(self) -> str: ...


class PointwiseState(CurvatureState, Protocol):
    """The inverse at one point, from factors of J there; see `FisherFactors`."""

    def newton_step(self, residual: Tensor) -> Tensor: ...
    def adjoint(self, g: Tensor) -> Tensor: ...

    @property
    def point(self) -> tuple[Tensor, Tensor]:
        """(u, v) of the factors."""
        ...


def belongs(state: PointwiseState, problem: BilevelProblem, u: Tensor, v: Tensor) -> bool:
    """The factors are those of (u, v)."""
    at_u, at_v = state.point
    return problem.quadratic or (torch.equal(at_v, v) and (problem.linear or torch.equal(at_u, u)))


@runtime_checkable
class ElsewhereState(Protocol):
    """A state whose inverse is in another process, which need not be waited for at once."""

    def begin(self, g: Tensor) -> Callable[[], Tensor]:
        """Ask for A g; the function returned waits for it. One question at a time."""
        ...


def begin_solve(state: CurvatureState, g: Tensor) -> Callable[[], Tensor]:
    """A function that gives A g, of the inverse as it is now; computed meanwhile where that is possible."""
    if isinstance(state, ElsewhereState):
        return state.begin(g)
    found = state.solve(g)
    return lambda: found


State = TypeVar("State", bound=CurvatureState)


class Curvature(Protocol[State]):
    """A backend: frozen options, and the verbs that make and renew its state.

    Attributes:
        pointwise: the inverse is that of one point, a `PointwiseState`; `refresh` moves it, scores do not change it.
    """

    @property
    def pointwise(self) -> bool: ...

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> State: ...

    def absorb(self, state: State, scores: Tensor) -> State:
        """Take in a batch of scores (d, m); the state passed in may be overwritten."""
        ...

    def refresh(self, state: State, problem: BilevelProblem, u: Tensor, v: Tensor) -> State:
        """Rebuild whatever is tied to one point (u, v)."""
        ...

    def anticipate(self, state: State, problem: BilevelProblem, u: Tensor, v: Tensor) -> State:
        """Say that the next `refresh` is likely to ask for this point; the inverse stays as it is."""
        ...

    def save(self, state: State) -> dict[str, Any]:
        """The state as tensors, numbers, strings, tuples and None, without copies of its tensors."""
        ...

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> State:
        """The state that was saved, which goes on with the same numbers; it takes over the tensors."""
        ...


class LocalBackend:
    """What most backends of this process have in common: they are not pointwise, and cannot work ahead."""

    pointwise: ClassVar[bool] = False

    def anticipate(self, state: State, problem: BilevelProblem, u: Tensor, v: Tensor) -> State:
        return state
