"""Waves in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import (
    Coefficient,
    Conditions,
    Conductivity,
    Points,
    RegionCoefficient,
    Starter,
)
from ...problem_file.expressions import Expression
from .base import Equation, Interior

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ...fem.state_space import FieldGroup, StateSpace
    from ...pde.form import Pointwise
    from ..values import Values


class WaveSpec(Equation):
    """u_tt - div(conductivity grad u) + damping u_t = source; needs `time`, whose `initial` may be a list [u, u_t]."""

    kind: Literal["wave"]
    conductivity: Conductivity = Expression(1.0)
    damping: Annotated[
        RegionCoefficient,
        Field(description="At least 0; expression, or mapping from subdomain (or default) to expression."),
    ] = Expression(0)
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    evolves: ClassVar[Literal["always"]] = "always"
    steady_operator: ClassVar[bool] = True
    absorbs: ClassVar[bool] = True
    starter: ClassVar[Starter] = Starter(
        more=('time: {end: 1, steps: 40, scheme: crank_nicolson, initial: "0"}',),
    )

    def groups(self, dim: int, element: str) -> tuple[FieldGroup, ...]:
        from ...fem.state_space import FieldGroup

        return FieldGroup("displacement", 1, element), FieldGroup("rate", 1, element)

    def initial_fields(self, dim: int) -> int:
        return 2

    def interior(self, values: Values, space: StateSpace) -> Interior:
        from ...pde.ranges import NOT_NEGATIVE
        from ...pde.wave import wave
        from .coefficients import conductivity_of, points

        x = points(space)
        conductivity, _ = conductivity_of(values, self.conductivity, x)
        damping = values.admitted("pde.damping", values.regional("pde.damping", self.damping, x), x, NOT_NEGATIVE)
        coefficients = {
            "conductivity": values.tensor(conductivity),
            "damping": values.tensor(damping),
            "source": values.tensor(values.regional("pde.source", self.source, x)),
        }
        return Interior(
            wave,
            coefficients,
            affine=True,
            symmetric=False,
            coercive=False,
            absorbing=True,
            capacity=x.new_ones(x.shape[1]),
            norms=("h1", "value"),
            derived=(1, 0),
        )

    def absorbing(
        self, values: Values, x: Tensor, cells: np.ndarray, place: str
    ) -> tuple[Pointwise, dict[str, Tensor]]:
        from ...pde.wave import absorbing
        from ..composed import traced_regions

        if isinstance(self.conductivity, tuple):
            message = "expected a scalar conductivity for an absorbing boundary, found a matrix"
            values.complain("pde.conductivity", message)
            return absorbing, {}
        traced = traced_regions(values, "pde.conductivity", self.conductivity, x, cells)
        return absorbing, {"conductivity": values.tensor(values.recorded(place, "conductivity", traced))}
