"""Waves of one frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import Coefficient, Conditions, Conductivity, Points, Starter, VectorCoefficient
from ...problem_file.expressions import Expression
from .base import Equation, Interior

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ...fem.state_space import FieldGroup, StateSpace
    from ...pde.form import Pointwise
    from ..values import Values


class HelmholtzSpec(Equation):
    """-div(conductivity grad u) - wavenumber^2 u = source, for a complex u."""

    kind: Literal["helmholtz"]
    conductivity: Conductivity = Expression(1.0)
    wavenumber: Coefficient = Field(description="Positive; expression, or mapping from subdomain to expression.")
    source: Annotated[VectorCoefficient, Field(description="Its real part, or a list [real, imaginary].")] = Expression(
        0
    )
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    absorbs: ClassVar[bool] = True
    starter: ClassVar[Starter] = Starter(pde={"wavenumber": "5"}, boundary={"all": "{absorbing: true}"})

    def components_of_source(self, dim: int) -> int:
        return 2

    def groups(self, dim: int, element: str) -> tuple[FieldGroup, ...]:
        from ...fem.state_space import FieldGroup

        return (FieldGroup("state", 2, element, ("real", "imag")),)

    def interior(self, values: Values, space: StateSpace) -> Interior:
        import numpy as np

        from ...pde.helmholtz import helmholtz
        from ...pde.ranges import POSITIVE
        from ..dependence import CELLS
        from .coefficients import conductivity_of, points

        x = points(space)
        conductivity, _ = conductivity_of(values, self.conductivity, x)
        wavenumber = values.admitted(
            "pde.wavenumber", values.regional("pde.wavenumber", self.wavenumber, x), x, POSITIVE
        )
        coefficients = {
            "conductivity": values.tensor(conductivity),
            "wavenumber": values.tensor(wavenumber),
            "source": values.tensor(values.components("pde.source", self.source, 2, x, place=CELLS)),
        }
        level = None
        # In the inner product int conductivity grad u . grad w + wavenumber^2 u w the equation is bounded for every
        # wavenumber, and the inf-sup constant is proportional to one over the number of waves in the domain.
        if values.nominal and not values.issues:
            mean = conductivity if conductivity.ndim <= 2 else np.trace(conductivity)[0] / len(x)
            level = values.tensor(np.broadcast_to(wavenumber**2 / mean, x.shape[1:]).copy())
        return Interior(helmholtz, coefficients, True, False, False, True, norms=("h1", "h1"), vector=2, level=level)

    def absorbing(
        self, values: Values, x: Tensor, cells: np.ndarray, place: str
    ) -> tuple[Pointwise, dict[str, Tensor]]:
        from ...pde.helmholtz import absorbing
        from ..composed import traced_regions

        if isinstance(self.conductivity, tuple):
            message = "expected a scalar conductivity for an absorbing boundary, found a matrix"
            values.complain("pde.conductivity", message)
            return absorbing, {}
        given = {"wavenumber": self.wavenumber, "conductivity": self.conductivity}
        coefficients = {}
        for name, value in given.items():
            traced = traced_regions(values, f"pde.{name}", value, x, cells)
            coefficients[name] = values.tensor(values.recorded(place, name, traced))
        return absorbing, coefficients
