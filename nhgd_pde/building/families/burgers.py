"""The equation of Burgers, u_t - viscosity lap u + u . grad u = source: a vector, in one dimension a scalar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import (
    STARTER_TIME,
    Coefficient,
    Conditions,
    Points,
    Starter,
    VectorCoefficient,
)
from ...problem_file.expressions import Expression
from .base import Equation, Interior

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ...fem.state_space import StateSpace
    from ...inner.residual import TestNorm
    from ...pde.form import Coefficients
    from ..values import Values


class BurgersSpec(Equation):
    """u_t - viscosity lap u + u . grad u = source, u a scalar in 1-D, else a vector; steady without `time`."""

    kind: Literal["burgers"]
    viscosity: Coefficient = Expression(1.0)
    source: Annotated[
        VectorCoefficient, Field(description="Expression in 1-D; else a list, an expression a component, or 0.")
    ] = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    evolves: ClassVar[Literal["may"]] = "may"
    starter: ClassVar[Starter] = Starter(
        pde={"viscosity": "0.05"},
        target='"sin(pi*x)"',
        weight="1.0e-3",
        more=STARTER_TIME,
        mesh="{kind: interval, size: 1, cells: 64}",
    )

    def components_of_source(self, dim: int) -> int:
        return dim

    def interior(self, values: Values, space: StateSpace) -> Interior:
        from ...pde.ranges import POSITIVE
        from .coefficients import points

        x, dim = points(space), space.domain.dim
        norm: tuple[TestNorm, ...] = ("h1",)
        viscosity = values.admitted("pde.viscosity", values.regional("pde.viscosity", self.viscosity, x), x, POSITIVE)
        coefficients = {
            "viscosity": values.tensor(viscosity),
            "source": values.tensor(self._source(values, dim, x)),
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

    def _source(self, values: Values, dim: int, x: Tensor) -> np.ndarray:
        """The source: (P,) or (steps, P) of a scalar state, (dim, steps or 1, P) of a vector."""
        given = self.source
        from ..dependence import CELLS

        if dim > 1:
            return values.components("pde.source", given, dim, x, place=CELLS)
        if not isinstance(given, tuple):
            return values.regional("pde.source", given, x)
        if len(given) != 1:
            values.complain("pde.source", f"expected one expression, found {len(given)}")
        return values.coefficient("source", "pde.source.0", given[0], x)


def burgers(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int (u . grad u - source) . phi + viscosity grad u . grad phi."""
    import torch

    carried = u * grad[0] if u.ndim == 2 else torch.einsum("jsp,ijsp->isp", u, grad)
    return carried - c["source"], c["viscosity"] * grad
