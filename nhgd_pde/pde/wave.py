"""Waves in time: u_tt - div(conductivity grad u) + damping u_t = source, as two fields, u and its rate w = u_t.

    w_t + damping w - div(conductivity grad u) = source   tested with functions phi, which vanish where u is given
    u_t - w = 0                                            tested with functions psi

With the midpoint rule this is the method of Newmark with average acceleration (Newmark 1959, J. Eng. Mech. Div. ASCE
85, 67-94), which preserves the energy 1/2 int w^2 + conductivity |grad u|^2 where nothing acts or damps; the implicit
Euler method damps waves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .form import Coefficients
from .poisson import conduction


def wave(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int (damping w - source) phi + conductivity grad u . grad phi - w psi."""
    density = (c["damping"] * u[1] - c["source"]).expand(u[1].shape)
    flux = conduction(u[0], grad[0], c)
    return torch.stack([density, -u[1]]), torch.stack([flux, torch.zeros_like(flux)])


def absorbing(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, None]:
    """conductivity du/dn = -sqrt(conductivity) w, which absorbs a wave that meets it at a right angle."""
    return torch.stack([c["conductivity"].abs().sqrt() * u[1], torch.zeros_like(u[1])]), None
