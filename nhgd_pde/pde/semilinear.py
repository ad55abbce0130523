"""Diffusion with a nonlinear reaction: -div(conductivity grad u) + nonlinearity(u) = source."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .form import Coefficients, Pointwise
from .poisson import conduction

# Values u (S, P) at points x (dim, P) -> values that broadcast against u, through which derivatives pass.
Nonlinearity = Callable[[Tensor, Tensor], Tensor]


def semilinear(nonlinearity: Nonlinearity) -> Pointwise:
    """int (nonlinearity(u) - source) phi + conductivity grad u . grad phi, conductivity as in `poisson`."""

    def form(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
        return nonlinearity(u, x) - c["source"], conduction(u, grad, c)

    return form
