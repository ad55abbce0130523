"""Diffusion, with a linear or a nonlinear reaction, steady or in time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import STARTER_TIME, Coefficient, Conditions, Conductivity, Points, Starter
from ...problem_file.expressions import Expression
from ...problem_file.fields import Formula
from .base import Equation, Interior

if TYPE_CHECKING:
    from torch import Tensor

    from ...fem.state_space import StateSpace
    from ...pde.form import Coefficients
    from ..values import Values


class PoissonSpec(Equation):
    """-div(conductivity grad u) + reaction u = source."""

    kind: Literal["poisson"]
    conductivity: Conductivity = Expression(1.0)
    reaction: Coefficient = Expression(0)
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    def interior(self, values: Values, space: StateSpace) -> Interior:
        return _linear(self, values, space)


class SemilinearSpec(Equation):
    """-div(conductivity grad u) + nonlinearity(u) = source."""

    kind: Literal["semilinear"]
    conductivity: Conductivity = Expression(1.0)
    nonlinearity: Annotated[Expression, Formula(names=("u",))] = Field(
        description="An expression in u and the coordinates, such as 'u**3'."
    )
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    starter: ClassVar[Starter] = Starter(pde={"nonlinearity": '"u**3"'})

    def interior(self, values: Values, space: StateSpace) -> Interior:
        from ...pde.poisson import semilinear
        from .coefficients import conductivity_of, points

        x = points(space)
        conductivity, symmetric = conductivity_of(values, self.conductivity, x)
        reaction = values.function("pde.nonlinearity", self.nonlinearity, x)

        def form(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor | None]:
            return semilinear(lambda u, x: reaction(c, u, x))(u, grad, c, x)

        coefficients = {
            "conductivity": values.tensor(conductivity),
            "source": values.tensor(values.regional("pde.source", self.source, x)),
        }
        return Interior(form, coefficients, False, symmetric, False, "u" in self.nonlinearity.variables)


class HeatSpec(Equation):
    """capacity u_t - div(conductivity grad u) + reaction u = source; needs `time`."""

    kind: Literal["heat"]
    capacity: Coefficient = Expression(1.0)
    conductivity: Conductivity = Expression(1.0)
    reaction: Coefficient = Expression(0)
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    evolves: ClassVar[Literal["always"]] = "always"
    steady_operator: ClassVar[bool] = True
    starter: ClassVar[Starter] = Starter(more=STARTER_TIME)

    def interior(self, values: Values, space: StateSpace) -> Interior:
        from .coefficients import capacity_of

        found = _linear(self, values, space)
        return replace(found, capacity=capacity_of(values, self.capacity, space), absorbing=True)


def _linear(pde: PoissonSpec | HeatSpec, values: Values, space: StateSpace) -> Interior:
    from ...pde.poisson import CLOSED_POISSON, poisson
    from .coefficients import conductivity_of, points

    x = points(space)
    conductivity, symmetric = conductivity_of(values, pde.conductivity, x)
    reaction = values.regional("pde.reaction", pde.reaction, x)
    coefficients = {
        "conductivity": values.tensor(conductivity),
        "reaction": values.tensor(reaction),
        "source": values.tensor(values.regional("pde.source", pde.source, x)),
    }
    coercive, absorbing = bool((reaction >= 0.0).all()), bool((reaction != 0.0).any())
    return Interior(
        poisson, coefficients, True, symmetric, coercive, absorbing, closed=CLOSED_POISSON, scale="conductivity"
    )
