"""The nominal scenario in the compared methods over scenarios: factors for preconditioning, and starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..engine.curvature.base import belongs
from ..engine.curvature.factored import Factored, FactoredState
from ..engine.plain import from_plain, to_plain
from ..engine.scenarios.part_equations import Tolerances
from ..engine.scenarios.part_solution import solve_part
from ..engine.scenarios.scenario_bilevel import ScenarioBilevelProblem

# Tolerance of the nominal solution, as a share of the tolerance of the scenarios.
_BETTER = 0.1


@dataclass(frozen=True)
class Nominal:
    """The nominal scenario at some control.

    Attributes:
        inverse: factors of its J, at this control or at an earlier one.
        u, p: (1, n) state and adjoint.
        age: number of evaluations since the factors were made.
    """

    inverse: FactoredState
    u: Tensor
    p: Tensor
    age: int = 0

    @classmethod
    def start(cls, problem: ScenarioBilevelProblem, v: Tensor) -> Nominal:
        u, _ = problem.nominal.start()
        return cls(Factored().init(problem.nominal, u, v), u, torch.zeros_like(u))

    def blend(self, other: Nominal, share: float) -> Nominal:
        """The state at self + share (other - self), with the factors of the other one."""
        return replace(other, u=torch.lerp(self.u, other.u, share), p=torch.lerp(self.p, other.p, share))

    def aged(self, problem: ScenarioBilevelProblem, v: Tensor, renew: int) -> Nominal:
        """The nominal scenario one evaluation later, with factors made at v if they would be `renew` evaluations
        old."""
        inverse, age = self.inverse, self.age + 1
        if age >= renew and not belongs(inverse, problem.nominal, self.u, v):
            inverse, age = Factored().refresh(inverse, problem.nominal, self.u, v), 0
        return replace(self, inverse=inverse, age=age)

    def at(self, problem: ScenarioBilevelProblem, v: Tensor, tolerance: float, renew: int) -> tuple[Nominal, str]:
        """The nominal scenario after `aged`, solved at v to a share of the tolerance, and a message where that
        fails."""
        aged = self.aged(problem, v, renew)
        inverse = aged.inverse
        # Errors are relative to the solution by the factors, because the norms of the first guess may be zero.
        norm = problem.nominal.inner_metric.norm
        guess = self.u - inverse.newton_step(problem.nominal.residual(self.u, v))
        right, _ = problem.nominal.scenario_derivatives(guess, v)
        adjoint = inverse.adjoint(right)
        goal = _BETTER * tolerance
        found = solve_part(
            problem.nominal, v, guess, adjoint, inverse, Tolerances(goal, goal, norm(guess), norm(adjoint))
        )
        return replace(aged, u=found.u, p=found.p), found.message

    def tolerances(self, problem: ScenarioBilevelProblem, tolerance: float) -> Tolerances:
        """Tolerances of scenarios, relative to the lengths of the nominal state and adjoint."""
        norm = problem.nominal.inner_metric.norm
        return Tolerances(tolerance, tolerance, norm(self.u), norm(self.p))

    def save(self) -> dict[str, Any]:
        inverse: Any = None
        return {"state": to_plain(replace(self, inverse=inverse)), "inverse": Factored().save(self.inverse)}

    @classmethod
    def restore(cls, problem: ScenarioBilevelProblem, saved: dict[str, Any]) -> Nominal:
        device = problem.start()[0].device
        inverse = Factored().restore(problem.nominal, from_plain(saved["inverse"], device))
        return replace(from_plain(saved["state"], device), inverse=inverse)
