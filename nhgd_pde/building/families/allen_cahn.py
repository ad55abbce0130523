"""The equation of Allen and Cahn."""

from __future__ import annotations

from ...fem.state_space import StateSpace
from ...pde.allen_cahn import allen_cahn
from ...pde.ranges import POSITIVE
from ...problem_file.pde_spec import AllenCahnSpec
from ..values import Values
from .base import Family, Interior, points, scalar_state


def _allen_cahn(values: Values, pde: AllenCahnSpec, space: StateSpace) -> Interior:
    x = points(space)
    epsilon = values.admitted("pde.epsilon", values.regional("pde.epsilon", pde.epsilon, x), x, POSITIVE)
    coefficients = {
        "epsilon": values.tensor(epsilon),
        "source": values.tensor(values.regional("pde.source", pde.source, x)),
    }
    capacity = x.new_ones(x.shape[1])
    return Interior(
        allen_cahn, coefficients, affine=False, symmetric=True, coercive=False, absorbing=True, capacity=capacity
    )


ALLEN_CAHN = Family(scalar_state, _allen_cahn, time="always")
