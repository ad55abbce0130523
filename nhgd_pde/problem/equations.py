"""The integrand that an equation of a problem file has in the cells, with its coefficients checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..pde.form import Pointwise
from ..pde.poisson import poisson
from ..pde.semilinear import semilinear
from .expressions import Expression
from .schema import PoissonSpec, SemilinearSpec
from .values import Values, point_text


@dataclass(frozen=True)
class Interior:
    """
    Attributes:
        form: the integrand.
        coefficients: by the names it uses.
        affine: it is affine in u and the source.
        symmetric: its derivative in u is.
        coercive: affine, with an energy that is not negative.
        absorbing: it may fix the level of u without any condition on the boundary.
    """

    form: Pointwise
    coefficients: dict[str, Tensor]
    affine: bool
    symmetric: bool
    coercive: bool
    absorbing: bool


def interior(values: Values, pde: PoissonSpec | SemilinearSpec, x: Tensor) -> Interior:
    """The integrand at the quadrature points x (dim, P); `values` collects what is wrong."""
    conductivity, symmetric = _conductivity(values, pde.conductivity, x)
    coefficients = {"conductivity": values.tensor(conductivity)}
    if isinstance(pde, SemilinearSpec):
        form = semilinear(values.function("pde.nonlinearity", pde.nonlinearity, x))
        affine, coercive, absorbing = False, False, "u" in pde.nonlinearity.variables
    else:
        reaction = values.regional("pde.reaction", pde.reaction, x)
        coefficients["reaction"] = values.tensor(reaction)
        form, affine = poisson, True
        coercive, absorbing = bool((reaction >= 0.0).all()), bool((reaction != 0.0).any())
    coefficients["source"] = values.tensor(values.regional("pde.source", pde.source, x))
    return Interior(form, coefficients, affine, symmetric, coercive, absorbing)


def _conductivity(
    values: Values, given: Expression | dict[str, Expression] | tuple[tuple[Expression, ...], ...], x: Tensor
) -> tuple[np.ndarray, bool]:
    """The conductivity (P,) or (dim, dim, 1, P), which must be positive definite; whether it is symmetric."""
    symmetric, dim = True, x.shape[0]
    before = len(values.issues)
    if isinstance(given, tuple):
        if len(given) != dim:
            message = f"expected a {dim} x {dim} matrix on a {dim}-D mesh, found {len(given)} x {len(given)}"
            values.complain("pde.conductivity", message)
            conductivity = np.broadcast_to(np.eye(dim)[:, :, None, None], (dim, dim, 1, x.shape[1]))
        else:
            rows = [
                np.stack([values.formula(f"pde.conductivity.{i}.{j}", entry, x) for j, entry in enumerate(row)])
                for i, row in enumerate(given)
            ]
            conductivity = np.stack(rows)[:, :, None]
            symmetric = bool((conductivity == conductivity.swapaxes(0, 1)).all())
        even = np.moveaxis(0.5 * (conductivity + conductivity.swapaxes(0, 1))[:, :, 0], -1, 0)
        smallest = np.linalg.eigvalsh(even)[:, 0]
    else:
        conductivity = values.regional("pde.conductivity", given, x)
        smallest = conductivity
    if len(values.issues) == before and (smallest <= 0.0).any():
        where = int(np.argmin(smallest))
        matrix = isinstance(given, tuple)
        kind = "a positive definite conductivity" if matrix else "a positive conductivity"
        value = f"the eigenvalue {smallest[where]:g}" if matrix else f"{smallest[where]:g}"
        values.complain("pde.conductivity", f"expected {kind}, found {value} at {point_text(x, where)}")
    return conductivity, symmetric
