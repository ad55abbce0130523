"""Diffusion: -div(conductivity grad u) + reaction u = source."""

from __future__ import annotations

import torch
from torch import Tensor

from .form import Coefficients


def poisson(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int (reaction u - source) phi + conductivity grad u . grad phi."""
    return c["reaction"] * u - c["source"], conduction(u, grad, c)


def conduction(u: Tensor, grad: Tensor, c: Coefficients) -> Tensor:
    """conductivity grad u, with `conductivity` (P,) or (S, P), or (dim, dim, S or 1, P) if it is anisotropic."""
    k = c["conductivity"]
    return k * grad if k.ndim <= 2 else torch.einsum("ijsp,jsp->isp", k.expand(-1, -1, *u.shape), grad)
