"""Diffusion, with a linear or a nonlinear reaction, steady or in time."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ...fem.state_space import StateSpace
from ...pde.form import Coefficients
from ...pde.poisson import CLOSED_POISSON, poisson
from ...pde.semilinear import semilinear
from ...problem_file.pde_spec import HeatSpec, PoissonSpec, SemilinearSpec
from ..values import Values
from .base import Family, Interior, capacity_of, conductivity_of, points, scalar_state


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
    return replace(_poisson(values, pde, space), capacity=capacity_of(values, pde.capacity, space), absorbing=True)


def _semilinear(values: Values, pde: SemilinearSpec, space: StateSpace) -> Interior:
    x = points(space)
    conductivity, symmetric = conductivity_of(values, pde.conductivity, x)
    reaction = values.function("pde.nonlinearity", pde.nonlinearity, x)

    def form(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return semilinear(lambda u, x: reaction(c, u, x))(u, grad, c, x)

    coefficients = {
        "conductivity": values.tensor(conductivity),
        "source": values.tensor(values.regional("pde.source", pde.source, x)),
    }
    return Interior(form, coefficients, False, symmetric, False, "u" in pde.nonlinearity.variables)


POISSON = Family(scalar_state, _poisson)
HEAT = Family(scalar_state, _heat, time="always")
SEMILINEAR = Family(scalar_state, _semilinear)
