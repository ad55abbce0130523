"""Incompressible flow: -viscosity lap u + (u . grad) u + grad p = source, div u = 0."""

from __future__ import annotations

import torch
from torch import Tensor

from .form import Coefficients, Pointwise


def stokes(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int viscosity grad u : grad phi - p div phi - source . phi - q div u, with the fields velocity and pressure.

    With these signs of the divergences the form is symmetric, and a flux on the boundary is the traction
    viscosity du/dn - p n, which is zero where no condition is given.
    """
    velocity, dim = grad[:-1], len(grad) - 1
    divergence = torch.stack([velocity[i, i] for i in range(dim)]).sum(0)
    value = torch.cat([-c["source"].expand(-1, *u.shape[1:]), -divergence[None]])
    identity = torch.eye(dim, dtype=u.dtype, device=u.device)[:, :, None, None]
    stress = c["viscosity"] * velocity - identity * u[-1]
    return value, torch.cat([stress, torch.zeros_like(grad[-1:])])


def navier_stokes(share: float = 1.0) -> Pointwise:
    """`stokes` and a share of the convective term int (u . grad) u . phi."""

    def form(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
        value, flux = stokes(u, grad, c, x)
        if share == 0.0:
            return value, flux
        convection = torch.einsum("jsp,ijsp->isp", u[:-1], grad[:-1])
        return torch.cat([value[:-1] + share * convection, value[-1:]]), flux

    return form
