"""The interface of inner statistical models, and options of all of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..engine.bilevel import FisherFactors, InnerBatch, Sample, StateFactors
from ..linalg.riesz import RieszMap
from ..linalg.sparse import SparseMatrix
from ..pde.linearisation import Linearisation

# How scores are made: with the observation noise integrated out, or the stochastic gradients as they are.
Scores = Literal["model", "observed"]


@dataclass(frozen=True)
class Observation:
    """Options of the stochastic inner objective.

    Attributes:
        scores: see `Scores`.
        noise: standard deviation sigma of the observations; None matches it to the running residual. It cancels
            everywhere except in observed scores and gradients.
    """

    scores: Scores = "model"
    noise: float | None = 1.0

    def deviation(self, rms: float) -> float:
        """sigma for a tested residual; its floor keeps the scores defined where the residual vanishes."""
        return (rms or sys.float_info.min) if self.noise is None else self.noise


class InnerModel(Protocol):
    """A negative log-likelihood in u whose minimiser solves R(u, v) = 0, in units in which sigma = 1."""

    @property
    def riesz(self) -> RieszMap: ...
    @property
    def name(self) -> str: ...
    @property
    def definite(self) -> bool:
        """Whether J is symmetric and positive definite at every v."""
        ...

    @property
    def whole_gram(self) -> SparseMatrix:
        """The Gram matrix of `riesz` on the whole state space, Dirichlet functions included, (N, N)."""
        ...

    def start(self, v: Tensor) -> Tensor:
        """A first state (S, n) for a control (p,)."""
        ...

    def sample(self, count: int, generator: torch.Generator) -> Sample: ...
    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch: ...
    def gradient(self, u: Tensor, v: Tensor) -> Tensor: ...
    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor: ...
    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor: ...
    def factors(self, u: Tensor, v: Tensor) -> FisherFactors: ...
    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors: ...
    def is_metric(self, derivative: Linearisation) -> bool:
        """Whether J is the matrix of `riesz`."""
        ...

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor: ...
    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor: ...


def gaussian(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers, drawn on the generator's device so that runs agree across devices."""
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)
