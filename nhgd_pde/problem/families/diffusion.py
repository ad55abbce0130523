"""Diffusion, with a linear or a nonlinear reaction, steady or in time."""

from __future__ import annotations

from dataclasses import replace

from ...fem.state_space import StateSpace
from ...pde.poisson import CLOSED_POISSON, poisson
from ...pde.semilinear import semilinear
from ..expressions import Expression
from ..pde_spec import HeatSpec, PoissonSpec, SemilinearSpec
from ..values import Values
from .base import Family, Interior, conductivity_of, points, scalar_state


def _poisson(values: Values, pde: PoissonSpec | HeatSpec, space: StateSpace) -> Interior:
    x = points(space)
    conductivity, symmetric = conductivity_of(values, pde.conductivity, x)
    reaction = values.regional("pde.reaction", pde.reaction, x)
    coefficients = {
        "conductivity": values.tensor(conductivity),
        "reaction": values.tensor(reaction),
        "source": values.tensor(values.regional("pde.source", pde.source, x)),
    }
    coercive, absorbing = bool((reaction >= 0.0).all()), bool((reaction != 0.0).any())
    return Interior(poisson, coefficients, True, symmetric, coercive, absorbing, closed=CLOSED_POISSON)


def _heat(values: Values, pde: HeatSpec, space: StateSpace) -> Interior:
    x, given = points(space), pde.capacity
    # No coefficient of the integrand, so that controls cannot enter it.
    regional = values.formula if isinstance(given, Expression) else values.regional
    capacity = values.positive("pde.capacity", regional("pde.capacity", given, x), x)  # type: ignore[arg-type]
    return replace(_poisson(values, pde, space), capacity=values.tensor(capacity), absorbing=True)


def _semilinear(values: Values, pde: SemilinearSpec, space: StateSpace) -> Interior:
    x = points(space)
    conductivity, symmetric = conductivity_of(values, pde.conductivity, x)
    form = semilinear(values.function("pde.nonlinearity", pde.nonlinearity, x))
    coefficients = {
        "conductivity": values.tensor(conductivity),
        "source": values.tensor(values.regional("pde.source", pde.source, x)),
    }
    return Interior(form, coefficients, False, symmetric, False, "u" in pde.nonlinearity.variables)


POISSON = Family(scalar_state, _poisson)
HEAT = Family(scalar_state, _heat, time="always")
SEMILINEAR = Family(scalar_state, _semilinear)
