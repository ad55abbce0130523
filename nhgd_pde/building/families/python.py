"""Equations whose weak form is a function of the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import Coefficient, Conditions, Points, VectorCoefficient
from ...problem_file.expressions import Expression
from ...problem_file.fields import Function, Number
from .base import Equation, Interior

if TYPE_CHECKING:
    from ...fem.state_space import StateSpace
    from ..values import Values


class PythonSpec(Equation):
    """A weak form of your own, a function (u, grad, c, x) -> (f0, f1). Runs the code of the file it is in."""

    python: Annotated[Any, Function()] = Field(description="The function, file.py:name.")
    components: Annotated[int, Number(whole=True, least=1)] = Field(default=1, description="Fields of the state.")
    coefficients: dict[str, VectorCoefficient] = Field(
        default_factory=dict, description="What the function finds in c, by name: expressions, or lists of them."
    )
    source: VectorCoefficient = Field(default=Expression(0), description="What it finds as c['source'].")
    capacity: Coefficient = Field(default=Expression(1.0), description="Factor of the time derivative, with time.")
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    @property
    def kind(self) -> str:
        return "python"

    evolves: ClassVar[Literal["may"]] = "may"
    starter: ClassVar[None] = None

    def components_of_source(self, dim: int) -> int:
        return self.components

    def interior(self, values: Values, space: StateSpace) -> Interior:
        from .own_form import python_interior

        return python_interior(values, self, space)
