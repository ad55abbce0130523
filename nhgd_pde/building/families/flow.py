"""Incompressible flow in Taylor-Hood elements: the velocity, then the pressure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import (
    BoundarySpec,
    Points,
    RegionCoefficient,
    Starter,
    VectorCoefficient,
)
from ...problem_file.expressions import Expression
from .base import Equation, Interior, UndeterminedField

if TYPE_CHECKING:
    import numpy as np

    from ...fem.state_space import FieldGroup, StateSpace
    from ...inner.residual import TestNorm
    from ..values import Values

Viscosity = Annotated[
    RegionCoefficient,
    Field(description="Positive expression, or mapping from subdomain (or default) to expression."),
]
Force = Annotated[VectorCoefficient, Field(description="Force a unit of volume, a list with one entry a component.")]
FlowConditions = Annotated[
    dict[str, BoundarySpec],
    Field(
        description="Velocities (dirichlet, a list with null where a component is free) and tractions viscosity du/dn "
        "- p n (neumann, a list) by the name of a side, or 'all'; a side without one has no traction."
    ),
]
_STARTER = Starter(
    pde={"source": "[0, 0]"},
    boundary={"top": "{dirichlet: [1, 0]}", "all": "{dirichlet: 0}"},
    target='["y - 0.5", "0.5 - x"]',
    mesh="{kind: rectangle, size: [1, 1], cells: [16, 16]}",
    element=("P2", "of the velocity; pressures are P1"),
)


class _Flow(Equation):
    """The base of flows: P2 for the velocity and P1 for the pressure, the lowest stable pair of its kind.

    On quadrilaterals the pair is Q2-Q1.
    """

    kind: str
    viscosity: Viscosity = Expression(1.0)
    source: Force = Expression(0)
    boundary: FlowConditions = Field(default_factory=dict)
    points: Points = ()

    mixed: ClassVar[bool] = True
    evolves: ClassVar[Literal["may"]] = "may"
    starter: ClassVar[Starter] = _STARTER

    def components_of_source(self, dim: int) -> int:
        return dim

    def groups(self, dim: int, element: str) -> tuple[FieldGroup, ...]:
        from ...fem.state_space import FieldGroup

        return FieldGroup("velocity", dim, "P2"), FieldGroup("pressure", 1, "P1")

    def interior(self, values: Values, space: StateSpace) -> Interior:
        return _interior(self, values, space)


class StokesSpec(_Flow):
    """u_t - viscosity lap u + grad p = source, div u = 0; steady without `time`; velocities in P2, pressures in P1."""

    kind: Literal["stokes"]
    steady_operator: ClassVar[bool] = True


class NavierStokesSpec(_Flow):
    """u_t - viscosity lap u + (u . grad) u + grad p = source, div u = 0; steady without `time`; P2 and P1 elements."""

    kind: Literal["navier_stokes"]
    convective: ClassVar[bool] = True
    starter: ClassVar[Starter] = replace(_STARTER, pde={**_STARTER.pde, "viscosity": "0.01"}, weight="1.0e-2")


def _interior(pde: _Flow, values: Values, space: StateSpace) -> Interior:
    from ...pde.flow import navier_stokes, stokes
    from ...pde.ranges import POSITIVE
    from ..dependence import CELLS
    from .coefficients import points

    x, dim = points(space), space.domain.dim
    if dim == 1:
        values.complain("mesh", f"expected a mesh in two or three dimensions for {pde.kind}, found one in 1-D")
    viscosity = values.admitted("pde.viscosity", values.regional("pde.viscosity", pde.viscosity, x), x, POSITIVE)
    coefficients = {
        "viscosity": values.tensor(viscosity),
        "source": values.tensor(values.components("pde.source", pde.source, dim, x, place=CELLS)),
    }
    velocity: list[TestNorm] = ["h1"] * dim
    return Interior(
        navier_stokes() if pde.convective else stokes,
        coefficients,
        affine=not pde.convective,
        symmetric=not pde.convective,
        coercive=False,
        absorbing=values.times is not None,
        capacity=None if values.times is None else x.new_ones(x.shape[1]),
        norms=(*velocity, "l2"),
        vector=dim,
        eased=navier_stokes if pde.convective else None,
        undetermined=UndeterminedField(dim, _outflow(space, dim)),
        multiplier=1.0 / coefficients["viscosity"],
    )


def _outflow(space: StateSpace, dim: int) -> np.ndarray:
    """int phi . n over the boundary of every velocity function phi, as int div phi; zero for pressures."""
    import numpy as np
    import torch

    cells = space.cells
    density = torch.zeros(cells.components, 1, cells.quadrature.points, dtype=torch.float64, device=space.device)
    for i in range(dim):
        density[i * (dim + 1) + 1 + i] = 1.0
    flux = cells.test(density)[0].cpu().numpy()
    if space.domain.seams:
        # What cancels at a seam leaves rounding there, which is small beside the flux on one of the sides.
        sides = np.concatenate([seam.facets.reshape(-1) for seam in space.domain.seams])
        largest = float(space.parts[0].facets(sides).quadrature.weights.sum(-1).max())
        flux[np.abs(flux) < 1e-10 * largest] = 0.0
    return flux
