"""States, values, adjoints and hypergradients of some scenarios at one control.

Who solves the equations is an argument: a `PartSolver` has an inverse that all scenarios share, or factors of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..curvature.base import PointwiseState
from .part_equations import RowSolutions, SharedInverse, Tolerances
from .scenario_bilevel import Part


class PartSolver(Protocol):
    """Solves the state and adjoint equations of a part of b scenarios."""

    def states(self, part: Part, v: Tensor, start: Tensor) -> RowSolutions:
        """R_s(u_s, v) = 0 from a start (b, n)."""
        ...

    def adjoints(self, part: Part, v: Tensor, u: Tensor, right: Tensor, start: Tensor) -> RowSolutions:
        """J_s^T p_s = right_s at states u (b, n) from a start (b, n)."""
        ...


@dataclass(frozen=True)
class PartStates:
    """States of b scenarios.

    Attributes:
        states: the solutions u_s.
        values: (b,) f_s at u_s.
        penalties: (b,) c_s at u_s, corrected to first order for the residuals of the states by an adjoint of f_s + c_s.
    """

    states: RowSolutions
    values: Tensor
    penalties: Tensor


def solve_part_states(part: Part, v: Tensor, u: Tensor, p: Tensor, solver: PartSolver) -> PartStates:
    """States and values of a part, from starts u (b, n); p (b, n) are adjoints, as far as they are known."""
    states = solver.states(part, v, u)
    penalties = part.scenario_penalties(states.solution, v) - (p * states.residual).sum(1)
    return PartStates(states, part.scenario_values(states.solution, v), penalties)


def solve_part_adjoints(
    part: Part,
    v: Tensor,
    u: Tensor,
    p: Tensor,
    solver: PartSolver,
    slopes: Tensor | None = None,
    needed: Tensor | None = None,
) -> tuple[RowSolutions, Tensor]:
    """Adjoints and hypergradients (b, p) of slopes times f_s plus c_s.

    Args:
        part: the scenarios.
        v: (p,) outer variables.
        u: (b, n) their states.
        p: (b, n) starts.
        solver: solves the equations.
        slopes: (b,), one by default.
        needed: (b,) scenarios to solve for; the adjoints of the others are zero, and their hypergradients worthless.
            All of them by default.
    """
    right, direct = part.scenario_derivatives(u, v, slopes)
    if needed is not None:
        right, p = torch.where(needed[:, None], right, 0.0), torch.where(needed[:, None], p, 0.0)
    adjoints = solver.adjoints(part, v, u, right, p)
    return adjoints, direct - part.scenario_control_products(u, v, adjoints.solution)


@dataclass(frozen=True)
class PartSolution:
    """States, adjoints and hypergradients of b scenarios at one control.

    Attributes:
        u, p: (b, n) states and adjoints.
        values: (b,) f_s + c_s, corrected to first order for the residuals of the states.
        rows: (b, p) hypergradients of f_s + c_s.
        state_error, adjoint_error: the largest relative errors.
        state_steps, adjoint_steps: largest number of applications of the inverse to a row.
        message: a sentence where a system could not be solved; everything else is then worthless.
    """

    u: Tensor
    p: Tensor
    values: Tensor
    rows: Tensor
    state_error: float
    adjoint_error: float
    state_steps: int
    adjoint_steps: int
    message: str = ""


def solve_part(
    part: Part, v: Tensor, u: Tensor, p: Tensor, inverse: PointwiseState, tolerances: Tolerances
) -> PartSolution:
    """States, adjoints and hypergradients of a part, from starts u and p (b, n)."""
    solver = SharedInverse(inverse, tolerances)
    found = solve_part_states(part, v, u, torch.zeros_like(p), solver)
    state = found.states
    adjoint, rows = solve_part_adjoints(part, v, state.solution, p, solver)
    return PartSolution(
        u=state.solution,
        p=adjoint.solution,
        values=found.values + found.penalties - (adjoint.solution * state.residual).sum(1),
        rows=rows,
        state_error=state.relative(tolerances.state_length),
        adjoint_error=adjoint.relative(tolerances.adjoint_length),
        state_steps=state.steps,
        adjoint_steps=adjoint.steps,
        message=state.message or adjoint.message,
    )
