"""The equation of Burgers, u_t - viscosity lap u + u . grad u = source, for a vector u, in one dimension a scalar."""

from __future__ import annotations

import torch
from torch import Tensor

from .form import Coefficients


def burgers(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int (u . grad u - source) . phi + viscosity grad u . grad phi."""
    carried = u * grad[0] if u.ndim == 2 else torch.einsum("jsp,ijsp->isp", u, grad)
    return carried - c["source"], c["viscosity"] * grad
