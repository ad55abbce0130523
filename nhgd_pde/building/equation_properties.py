"""Whether an equation is symmetric and has an energy, in the nominal problem and in all scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..pde.boundary import robin
from ..pde.form import Integral
from .evaluator import place_text
from .families.base import Interior
from .values import Values


@dataclass(frozen=True)
class EquationProperties:
    """Properties of an equation that methods rely on.

    Attributes:
        symmetric: its derivative in the state is symmetric.
        coercive: the integral over the cells has an energy that is not negative.
        exchanging: Robin conditions add no negative energy.
    """

    symmetric: bool
    coercive: bool
    exchanging: bool

    def __and__(self, other: EquationProperties) -> EquationProperties:
        each = (self.symmetric, other.symmetric), (self.coercive, other.coercive), (self.exchanging, other.exchanging)
        return EquationProperties(*map(all, each))


def properties_of(interior: Interior, conditions: Mapping[str, Integral]) -> EquationProperties:
    """The properties of an equation with these integrals over the boundary, by name."""
    exchanging = all(
        bool((each.coefficients["coefficient"] >= 0.0).all()) for each in conditions.values() if each.form is robin
    )
    return EquationProperties(interior.symmetric, interior.coercive, exchanging)


def check_properties(
    values: Values, symmetric: bool, energy: bool, interior: Interior, conditions: Mapping[str, Integral]
) -> None:
    """Complain of scenarios whose equation has to be symmetric, or has to have an energy, and does not."""
    if not values.issues:
        which = "" if values.random is None else values.random.which
        if symmetric and not interior.symmetric:
            message = f"expected a self-adjoint equation, as that of other scenarios is; found none{which}"
            values.complain("pde", message)
        if energy and not interior.coercive:
            message = f"expected a coercive equation, as inner.model energy needs; found none{which}: take residual"
            values.complain("pde", message)
    for name, condition in conditions.items() if energy else ():
        if condition.form is robin and bool((condition.coefficients["coefficient"] < 0.0).any()):
            flat = condition.coefficients["coefficient"].cpu().numpy()
            where = int(np.argmin(flat))
            place = place_text(values.random, condition.evaluation.quadrature.flat, where)
            message = f"expected at least 0, as inner.model energy needs, found {flat.reshape(-1)[where]:g} at {place}"
            values.complain(f"pde.boundary.{name}.robin.coefficient", f"{message}: take residual")
