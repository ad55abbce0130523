"""Diffusion in a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import Coefficient, Conditions, Conductivity, Points, Starter, Vector
from ...problem_file.expressions import Expression
from ...problem_file.fields import Formula
from .base import Equation, Interior

if TYPE_CHECKING:
    from ...fem.state_space import StateSpace
    from ..values import Values


class AdvectionDiffusionSpec(Equation):
    """u_t - div(conductivity grad u) + velocity . grad u + reaction u = source; steady without `time`."""

    kind: Literal["advection_diffusion"]
    conductivity: Conductivity = Expression(1.0)
    velocity: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        description="A list of expressions, one a coordinate."
    )
    reaction: Coefficient = Expression(0)
    source: Coefficient = Expression(0)
    stabilisation: Literal["auto", "none", "supg"] = Field(
        default="auto",
        description="Streamline-upwind weighting of the residual: in cells with a Peclet number above 1, nowhere, or "
        "everywhere.",
    )
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    evolves: ClassVar[Literal["may"]] = "may"
    steady_operator: ClassVar[bool] = True
    starter: ClassVar[Starter] = Starter(pde={"conductivity": "0.01", "velocity": "[1, 0]"})

    def interior(self, values: Values, space: StateSpace) -> Interior:
        from .upwinding import advection_interior

        return advection_interior(values, self, space)
