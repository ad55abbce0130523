"""The structured inverse: expectations of scores taken analytically, sparse factors of the mean Jacobian."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..bilevel import BilevelProblem, FisherFactors
from .base import LocalBackend, within


@dataclass(frozen=True)
class FactoredState:
    """
    Attributes:
        factors: the inverse at the point where it was last renewed.
        u, v: that point.
    """

    factors: FisherFactors
    u: Tensor
    v: Tensor

    def solve(self, g: Tensor) -> Tensor:
        return self.factors.solve(g)

    def estimate(self, g: Tensor) -> Tensor:
        return self.factors.solve(g)

    def newton_step(self, residual: Tensor) -> Tensor:
        return self.factors.newton_step(residual)

    def adjoint(self, g: Tensor) -> Tensor:
        return self.factors.adjoint(g)

    def within(self, rtol: float) -> FactoredState:
        """The state for solves that need not be more accurate than this."""
        return replace(self, factors=within(self.factors, rtol))

    @property
    def point(self) -> tuple[Tensor, Tensor]:
        return self.u, self.v

    @property
    def trust(self) -> float:
        return 1.0

    @property
    def description(self) -> str:
        return f"factored {self.factors.description}"


@dataclass(frozen=True)
class Factored(LocalBackend):
    """A = Jbar^-1 K Jbar^-T (residual form) or Jbar^-1 (energy form); exact at its point without scenarios.

    E[J^T w w^T J] = Jbar^T K^-1 Jbar where w is drawn from N(0, K^-1), so that no samples are needed.
    """

    pointwise = True
    sampled = False
    remade = "factors"

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> FactoredState:
        return FactoredState(problem.fisher_factors(u, v), u, v)

    def absorb(self, state: FactoredState, scores: Tensor) -> FactoredState:
        return state

    def refresh(self, state: FactoredState, problem: BilevelProblem, u: Tensor, v: Tensor) -> FactoredState:
        return self.init(problem, u, v)

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> FactoredState:
        return self.init(problem, saved["u"], saved["v"])
