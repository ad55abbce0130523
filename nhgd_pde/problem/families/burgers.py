"""The equation of Burgers, in time or steady."""

from __future__ import annotations

from ...fem.state_space import FieldGroup, StateSpace
from ...pde.burgers import burgers
from ..pde_spec import BurgersSpec
from ..values import Values
from .base import Family, Interior, points


def _groups(pde: BurgersSpec, dim: int, element: str) -> tuple[FieldGroup, ...]:
    return (FieldGroup("state", dim, element),)


def _burgers(values: Values, pde: BurgersSpec, space: StateSpace) -> Interior:
    x, dim = points(space), space.domain.dim
    viscosity = values.positive("pde.viscosity", values.regional("pde.viscosity", pde.viscosity, x), x)
    source = values.components("pde.source", pde.source, dim, x)
    coefficients = {
        "viscosity": values.tensor(viscosity),
        "source": values.tensor(source if dim > 1 else source[0]),
    }
    return Interior(
        burgers,
        coefficients,
        affine=False,
        symmetric=False,
        coercive=False,
        absorbing=values.times is not None,
        capacity=x.new_ones(x.shape[1]),
        norms=("h1",) * dim,
        vector=dim if dim > 1 else None,
    )


BURGERS = Family(_groups, _burgers, time="may")
