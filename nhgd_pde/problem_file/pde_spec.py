"""The vocabulary of `pde` and `time`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import Field

from nhgd_pde.problem_file.catalogue import EQUATIONS, found_at
from nhgd_pde.problem_file.equation_parts import EquationSpec, Vector
from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.fields import Formula, Number, OneOf, Section

# The sections of the catalogue, which type checkers do not see.
if TYPE_CHECKING:
    PDESpec = EquationSpec
else:
    PDESpec = Annotated[Union[*map(found_at, EQUATIONS.values())], OneOf()]


class TimeSpec(Section):
    """From 0 to the end in equal steps."""

    end: Annotated[float, Number(above=0)] = Field(description="Time at which the evolution ends.")
    steps: Annotated[int, Number(whole=True, least=1)] = Field(description="Steps in time.")
    scheme: Literal["implicit_euler", "crank_nicolson"] = Field(
        default="implicit_euler", description="First or second order; the latter is the implicit midpoint rule."
    )
    initial: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        default=Expression(0), description="State at time 0, interpolated at the nodes; of a vector a list."
    )
