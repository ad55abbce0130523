"""The equation of Allen and Cahn, u_t - epsilon lap u + (u^3 - u)/epsilon = source: phases -1 and 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import Coefficient, Conditions, Points, Starter
from ...problem_file.expressions import Expression
from .base import Equation, Interior

if TYPE_CHECKING:
    from torch import Tensor

    from ...fem.state_space import StateSpace
    from ...pde.form import Coefficients
    from ..values import Values


class AllenCahnSpec(Equation):
    """u_t - epsilon lap u + (u^3 - u)/epsilon = source; needs `time`."""

    kind: Literal["allen_cahn"]
    epsilon: Coefficient = Field(
        description="Thickness of the layers between phases; expression, or mapping from subdomain to expression."
    )
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    evolves: ClassVar[Literal["always"]] = "always"
    starter: ClassVar[Starter] = Starter(
        pde={"epsilon": "0.2"},
        boundary={"all": "{neumann: 0}"},
        target='"cos(pi*x)*cos(pi*y)"',
        weight="1.0e-2",
        more=('time: {end: 0.2, steps: 10, scheme: implicit_euler, initial: "cos(pi*x)"}',),
    )

    def interior(self, values: Values, space: StateSpace) -> Interior:
        from ...pde.ranges import POSITIVE
        from .coefficients import points

        x = points(space)
        epsilon = values.admitted("pde.epsilon", values.regional("pde.epsilon", self.epsilon, x), x, POSITIVE)
        coefficients = {
            "epsilon": values.tensor(epsilon),
            "source": values.tensor(values.regional("pde.source", self.source, x)),
        }
        capacity = x.new_ones(x.shape[1])
        return Interior(
            allen_cahn,
            coefficients,
            affine=False,
            symmetric=True,
            coercive=False,
            absorbing=True,
            capacity=capacity,
            flux_blocks=lambda c, dim: {(1 + i, 1 + i): c["epsilon"] for i in range(dim)},
        )


def allen_cahn(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int ((u^3 - u)/epsilon - source) phi + epsilon grad u . grad phi."""
    return (u**3 - u) / c["epsilon"] - c["source"], c["epsilon"] * grad
