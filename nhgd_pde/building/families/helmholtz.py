"""Waves of one frequency."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ...fem.state_space import FieldGroup, StateSpace
from ...pde.form import Pointwise
from ...pde.helmholtz import absorbing, helmholtz
from ...pde.ranges import POSITIVE
from ...problem_file.pde_spec import HelmholtzSpec
from ..dependence import CELLS
from ..values import Values
from .base import Family, Interior, conductivity_of, points


def _complex_state(spec: Any, dim: int, element: str) -> tuple[FieldGroup, ...]:
    return (FieldGroup("state", 2, element, ("real", "imag")),)


def _helmholtz(values: Values, pde: HelmholtzSpec, space: StateSpace) -> Interior:
    x = points(space)
    conductivity, _ = conductivity_of(values, pde.conductivity, x)
    wavenumber = values.admitted("pde.wavenumber", values.regional("pde.wavenumber", pde.wavenumber, x), x, POSITIVE)
    coefficients = {
        "conductivity": values.tensor(conductivity),
        "wavenumber": values.tensor(wavenumber),
        "source": values.tensor(values.components("pde.source", pde.source, 2, x, place=CELLS)),
    }
    level = None
    # The product of int conductivity grad u . grad w + wavenumber^2 u w, in which the equation is bounded whatever the
    # wavenumber, and the inf-sup constant falls as one over the waves in the domain.
    if values.nominal and not values.issues:
        mean = conductivity if conductivity.ndim <= 2 else np.trace(conductivity)[0] / len(x)
        level = values.tensor(np.broadcast_to(wavenumber**2 / mean, x.shape[1:]).copy())
    return Interior(helmholtz, coefficients, True, False, False, True, norms=("h1", "h1"), vector=2, level=level)


def _absorbing(
    values: Values, pde: HelmholtzSpec, x: Tensor, cells: np.ndarray, place: str
) -> tuple[Pointwise, dict[str, Tensor]]:
    """The condition at the points x (dim, P) of facets, one of `cells` each."""
    if isinstance(pde.conductivity, tuple):
        message = "expected a scalar conductivity for an absorbing boundary, found a matrix"
        values.complain("pde.conductivity", message)
        return absorbing, {}
    given = {"wavenumber": pde.wavenumber, "conductivity": pde.conductivity}
    coefficients = {}
    for name, value in given.items():
        traced = values.traced_regions(f"pde.{name}", value, x, cells)
        coefficients[name] = values.tensor(values.recorded(place, name, traced))
    return absorbing, coefficients


HELMHOLTZ = Family(_complex_state, _helmholtz, _absorbing)
