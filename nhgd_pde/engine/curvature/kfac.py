"""Kronecker-factored curvature of networks: one block G kron A per layer, as a preconditioner.

A is the second moment of the inputs of a layer, and G the Fisher information of its outputs. With g outputs and a
inputs the factors take a^2 + g^2 numbers in place of (a g)^2 (Martens and Grosse 2015, arXiv 1503.05671; for a strongly
convex layer, Boehning 1992, Ann. Inst. Statist. Math. 44, has the bound of this form). It is not the Fisher information
itself, so that Newton directions and the hypergradient are found by conjugate gradients that it preconditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ...linalg.kronecker import KroneckerBlocks
from ..bilevel import BilevelProblem
from .base import LocalBackend


@runtime_checkable
class KroneckerProblem(Protocol):
    """Further members of a bilevel problem whose inner variables are the parameters of layers.

    Attributes:
        ridge: lambda >= 0 of the term lambda/2 |u|^2 of the inner objective, which is the damping.
    """

    @property
    def ridge(self) -> float: ...

    def layer_factors(self, u: Tensor, v: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """A (a, a) and G (g, g) of every layer, whose parameters [W, b] (g, a) are row by row in u."""
        ...


@dataclass(frozen=True)
class KFACState:
    """
    Attributes:
        blocks: the blocks at the point where they were last renewed.
        u, v: that point.
    """

    blocks: KroneckerBlocks
    u: Tensor
    v: Tensor
    trust: float = 1.0

    def solve(self, g: Tensor) -> Tensor:
        return self.blocks.solve(g)

    def estimate(self, g: Tensor) -> Tensor:
        return self.blocks.solve(g)

    @property
    def description(self) -> str:
        return f"kfac {self.blocks}"


@dataclass(frozen=True)
class KFAC(LocalBackend):
    """A = (G kron A + lambda I)^-1 of every layer, by the eigenvectors of both factors."""

    iterated = True
    layered = True
    sampled = False
    remade = "blocks"

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> KFACState:
        """
        Raises:
            TypeError: a problem without layers.
        """
        if not isinstance(problem, KroneckerProblem):
            raise TypeError("a kfac inverse needs a problem with `layer_factors` and `ridge`, see KroneckerProblem")
        # With eigenvectors lambda can be added to the product itself, which is exact where the factors are.
        return KFACState(KroneckerBlocks.of(problem.layer_factors(u, v), problem.ridge, "whole"), u, v)

    def absorb(self, state: KFACState, scores: Tensor) -> KFACState:
        return state

    def refresh(self, state: KFACState, problem: BilevelProblem, u: Tensor, v: Tensor) -> KFACState:
        return self.init(problem, u, v)

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> KFACState:
        return self.init(problem, saved["u"], saved["v"])
