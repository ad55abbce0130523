"""Diffusion, with a linear or a nonlinear reaction, steady or in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

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
    """-div(conductivity (grad u + mean_gradient)) + reaction u = source."""

    kind: Literal["poisson"]
    conductivity: Conductivity = Expression(1.0)
    reaction: Coefficient = Expression(0)
    source: Coefficient = Expression(0)
    mean_gradient: Annotated[Expression | tuple[Expression, ...] | None, Formula(null=True, vector=True)] = Field(
        default=None,
        description="Gradient of a whole field from which u is the deviation, a list with an expression a coordinate.",
    )
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    @classmethod
    def meaning(cls, content: Mapping[str, Any]) -> str:
        if content.get("mean_gradient") is None:
            return "-div(conductivity grad u) + reaction u = source."
        return super().meaning(content)

    def interior(self, values: Values, space: StateSpace) -> Interior:
        found = _linear(self, values, space)
        if self.mean_gradient is None:
            return found
        from ...pde.poisson import poisson_about_a_gradient
        from ..dependence import CELLS
        from .coefficients import points

        x = points(space)
        listed = _directions(self.mean_gradient, values, x)
        gradient = values.components("pde.mean_gradient", listed, len(x), x, place=CELLS, name="mean_gradient")
        coefficients = {**found.coefficients, "mean_gradient": values.tensor(gradient)}
        return replace(found, form=poisson_about_a_gradient, coefficients=coefficients, closed=None, scale="")


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
        from ...pde.poisson import conduction_blocks, semilinear
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
        absorbing = "u" in self.nonlinearity.variables
        return Interior(form, coefficients, False, symmetric, False, absorbing, flux_blocks=conduction_blocks)


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


def _directions(given: Expression | tuple[Expression, ...], values: Values, x: Tensor) -> tuple[Expression, ...]:
    """A vector with one expression for each coordinate."""
    listed = given if isinstance(given, tuple) else (given,)
    if len(listed) == len(x):
        return listed
    found = f"a list of {len(listed)}" if isinstance(given, tuple) else "a scalar"
    values.complain("pde.mean_gradient", f"expected {len(x)} expressions, one a coordinate, found {found}")
    return (Expression(0),) * len(x)


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
