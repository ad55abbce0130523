"""Diffusion: -div(conductivity grad u) + reaction u = source, or with nonlinearity(u) in place of the reaction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .form import ClosedForm, Coefficients, Pointwise


def poisson(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int (reaction u - source) phi + conductivity grad u . grad phi."""
    return c["reaction"] * u - c["source"], conduction(u, grad, c)


def poisson_about_a_gradient(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int (reaction u - source) phi + conductivity (grad u + mean_gradient) . grad phi."""
    return poisson(u, grad + c["mean_gradient"], c, x)


def semilinear(nonlinearity: Callable[[Tensor, Tensor], Tensor]) -> Pointwise:
    """int (nonlinearity(u) - source) phi + conductivity grad u . grad phi.

    The nonlinearity maps u (S, P) and points x (dim, P) to values that broadcast against u, through which derivatives
    pass.
    """

    def form(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
        return nonlinearity(u, x) - c["source"], conduction(u, grad, c)

    return form


def conduction(u: Tensor, grad: Tensor, c: Coefficients) -> Tensor:
    """The flux conductivity grad u; `conductivity` is (P,) or (S, P), or (dim, dim, S or 1, P) if it is anisotropic."""
    k = c["conductivity"]
    return k * grad if k.ndim <= 2 else torch.einsum("ijsp,jsp->isp", k.expand(-1, -1, *u.shape), grad)


def conduction_blocks(c: Coefficients, dim: int) -> dict[tuple[int, int], Tensor]:
    """The derivative of `conduction`, component by component."""
    k = c["conductivity"]
    if k.ndim <= 2:
        return {(1 + i, 1 + i): k for i in range(dim)}
    return {(1 + i, 1 + j): k[i, j] for i in range(dim) for j in range(dim)}


def _blocks(c: Coefficients, dim: int) -> dict[tuple[int, int], Tensor]:
    return {(0, 0): c["reaction"], **conduction_blocks(c, dim)}


def source_load(c: Coefficients) -> Tensor:
    return -c["source"]


CLOSED_POISSON = ClosedForm(_blocks, source_load)
