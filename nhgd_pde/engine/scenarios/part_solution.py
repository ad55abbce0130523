"""Some scenarios at one control, solved each for itself, and the nominal one that helps them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..curvature.base import PointwiseState
from .part_equations import Tolerances, solve_adjoints, solve_states
from .scenario_bilevel import Part


@dataclass(frozen=True)
class PartSolution:
    """What is known of b scenarios at one control.

    Attributes:
        u, p: (b, n) states and adjoints.
        values: (b,) f_s, to second order in what is left of the state equations.
        rows: (b, p) hypergradients of f_s.
        state_error, adjoint_error: the largest, relative.
        state_steps, adjoint_steps: applications of the inverse to a row, at most.
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
    state = solve_states(part, v, u, inverse, tolerances.state, tolerances.state_length)
    right, direct = part.scenario_derivatives(state.solution, v)
    goal = tolerances.adjoint, tolerances.adjoint_length
    adjoint = solve_adjoints(part, state.solution, v, right, p, inverse, goal)
    return PartSolution(
        u=state.solution,
        p=adjoint.solution,
        values=part.scenario_values(state.solution, v) - (adjoint.solution * state.residual).sum(1),
        rows=direct - part.scenario_control_products(state.solution, v, adjoint.solution),
        state_error=state.relative(tolerances.state_length),
        adjoint_error=adjoint.relative(tolerances.adjoint_length),
        state_steps=state.steps,
        adjoint_steps=adjoint.steps,
        message=state.message or adjoint.message,
    )
