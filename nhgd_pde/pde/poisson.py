"""Diffusion: -div(conductivity grad u) + reaction u = source, with Neumann and Robin conditions."""

from __future__ import annotations

import torch
from torch import Tensor

from .form import Coefficients


def poisson(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int (reaction u - source) phi + conductivity grad u . grad phi.

    `conductivity` is (P,) or (S, P), or (dim, dim, S or 1, P) for an anisotropic material.
    """
    k = c["conductivity"]
    flux = k * grad if k.ndim <= 2 else torch.einsum("ijsp,jsp->isp", k.expand(-1, -1, *u.shape), grad)
    return c["reaction"] * u - c["source"], flux


def neumann(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, None]:
    """Boundary flux conductivity du/dn = flux."""
    return -c["flux"], None


def robin(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, None]:
    """Exchange with surroundings at `value`: conductivity du/dn = coefficient (value - u)."""
    return c["coefficient"] * (u - c["value"]), None
