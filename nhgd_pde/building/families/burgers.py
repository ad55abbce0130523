"""The equation of Burgers, in time or steady."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...fem.state_space import FieldGroup, StateSpace
from ...inner.residual import TestNorm
from ...pde.burgers import burgers
from ...pde.ranges import POSITIVE
from ...problem_file.pde_spec import BurgersSpec
from ..dependence import CELLS
from ..values import Values
from .base import Family, Interior, points


def _groups(pde: BurgersSpec, dim: int, element: str) -> tuple[FieldGroup, ...]:
    return (FieldGroup("state", dim, element),)


def _burgers(values: Values, pde: BurgersSpec, space: StateSpace) -> Interior:
    x, dim = points(space), space.domain.dim
    norm: tuple[TestNorm, ...] = ("h1",)
    viscosity = values.admitted("pde.viscosity", values.regional("pde.viscosity", pde.viscosity, x), x, POSITIVE)
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
    given = pde.source
    if dim > 1:
        return values.components("pde.source", given, dim, x, place=CELLS)
    if not isinstance(given, tuple):
        return values.regional("pde.source", given, x)
    if len(given) != 1:
        values.complain("pde.source", f"expected one expression, found {len(given)}")
    return values.coefficient("source", "pde.source.0", given[0], x)


BURGERS = Family(_groups, _burgers, time="may")
