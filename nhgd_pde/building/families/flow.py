"""Incompressible flow in Taylor-Hood elements: the velocity, then the pressure."""

from __future__ import annotations

import numpy as np
import torch

from ...fem.state_space import FieldGroup, StateSpace
from ...inner.residual import TestNorm
from ...pde.flow import navier_stokes, stokes
from ...pde.ranges import POSITIVE
from ...problem_file.pde_spec import NavierStokesSpec, StokesSpec
from ..dependence import CELLS
from ..values import Values
from .base import Family, Interior, UndeterminedField, points


def _groups(pde: StokesSpec | NavierStokesSpec, dim: int, element: str) -> tuple[FieldGroup, ...]:
    """P2 for the velocity and P1 for the pressure, the lowest stable pair of its kind (Q2-Q1 on quadrilaterals)."""
    return FieldGroup("velocity", dim, "P2"), FieldGroup("pressure", 1, "P1")


def _interior(values: Values, pde: StokesSpec | NavierStokesSpec, space: StateSpace) -> Interior:
    x, dim = points(space), space.domain.dim
    if dim == 1:
        values.complain("mesh", f"expected a mesh in two or three dimensions for {pde.kind}, found one in 1-D")
    viscosity = values.admitted("pde.viscosity", values.regional("pde.viscosity", pde.viscosity, x), x, POSITIVE)
    coefficients = {
        "viscosity": values.tensor(viscosity),
        "source": values.tensor(values.components("pde.source", pde.source, dim, x, place=CELLS)),
    }
    velocity: list[TestNorm] = ["h1"] * dim
    convective = isinstance(pde, NavierStokesSpec)
    return Interior(
        navier_stokes() if convective else stokes,
        coefficients,
        affine=not convective,
        symmetric=not convective,
        coercive=False,
        absorbing=False,
        norms=(*velocity, "l2"),
        vector=dim,
        eased=navier_stokes if convective else None,
        undetermined=UndeterminedField(dim, _outflow(space, dim)),
    )


def _outflow(space: StateSpace, dim: int) -> np.ndarray:
    """int phi . n over the boundary of every velocity function phi, as int div phi; zero for pressures."""
    cells = space.cells
    density = torch.zeros(cells.components, 1, cells.quadrature.points, dtype=torch.float64, device=space.device)
    for i in range(dim):
        density[i * (dim + 1) + 1 + i] = 1.0
    return cells.test(density)[0].cpu().numpy()


STOKES = Family(_groups, _interior)
NAVIER_STOKES = Family(_groups, _interior)
