"""What the engine asks of an EFIM-inverse backend."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ..bilevel import BilevelProblem


class CurvatureState(Protocol):
    """The inverse A as it stands."""

    def solve(self, g: Tensor) -> Tensor: ...
    def estimate(self, g: Tensor) -> Tensor: ...

    @property
    def trust(self) -> float:
        """In [0, 1]: the share of a natural-gradient step that sampling errors leave stable; 0: none yet."""
        ...

    @property
    def description(self) -> str: ...


State = TypeVar("State", bound=CurvatureState)


class Curvature(Protocol[State]):
    """A backend: frozen options, and the verbs that make and renew its state."""

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> State: ...

    def absorb(self, state: State, scores: Tensor) -> State:
        """Take in a batch of scores (d, m)."""
        ...

    def refresh(self, state: State, problem: BilevelProblem, u: Tensor, v: Tensor) -> State:
        """Rebuild whatever is tied to one point (u, v)."""
        ...


def symmetric_(a: Tensor) -> Tensor:
    """Symmetrise in place."""
    return a.add_(a.T.clone()).mul_(0.5)


def identity_like(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)
