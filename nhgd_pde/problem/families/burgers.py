"""The equation of Burgers, in time or steady."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...fem.state_space import FieldGroup, StateSpace
from ...inner.residual import TestNorm
from ...pde.burgers import burgers
from ..pde_spec import BurgersSpec
from ..values import Values
from .base import Family, Interior, points


def _groups(pde: BurgersSpec, dim: int, element: str) -> tuple[FieldGroup, ...]:
    return (FieldGroup("state", dim, element),)


def _burgers(values: Values, pde: BurgersSpec, space: StateSpace) -> Interior:
    x, dim = points(space), space.domain.dim
    norm: tuple[TestNorm, ...] = ("h1",)
    viscosity = values.positive("pde.viscosity", values.regional("pde.viscosity", pde.viscosity, x), x)
    coefficients = {
        "viscosity": values.tensor(viscosity),
        "source": values.tensor(_source(values, pde, dim, x)),
    }
    return Interior(
        burgers,
        coefficients,
        affine=False,
        symmetric=False,
        coercive=False,
        absorbing=values.times is not None,
        capacity=x.new_ones(x.shape[1]),
        norms=norm * dim,
        vector=dim if dim > 1 else None,
    )


def _source(values: Values, pde: BurgersSpec, dim: int, x: Tensor) -> np.ndarray:
    """(P,) or (steps, P) of a scalar, (dim, steps or 1, P) of a vector."""
    if dim == 1 and not isinstance(pde.source, tuple):
        return values.regional("pde.source", pde.source, x)
    found = values.components("pde.source", pde.source, dim, x)
    return found if dim > 1 else found[0]


BURGERS = Family(_groups, _burgers, time="may")
