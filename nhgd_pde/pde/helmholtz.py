"""Waves of one frequency: -div(conductivity grad u) - wavenumber^2 u = source, for a complex u.

The state u = u_0 + i u_1 consists of two real fields. The factor in time is exp(-i omega t), so that the wave exp(i k
x) travels along x. The real and the imaginary part of the equation are tested separately, so that the matrix is

    [ A   B ]
    [-B   A ]   with A symmetric and indefinite, B from absorbing boundaries; A - i B is complex symmetric.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .form import Coefficients
from .poisson import conduction


def helmholtz(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int -(wavenumber^2 u + source) phi + conductivity grad u . grad phi; `source` (2, S or 1, P)."""
    flux = torch.stack([conduction(value, slopes, c) for value, slopes in zip(u, grad, strict=True)])
    return -(c["wavenumber"] ** 2) * u - c["source"], flux


def absorbing(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, None]:
    """conductivity du/dn = i wavenumber sqrt(conductivity) u, which absorbs a wave that meets it at a right angle."""
    return c["wavenumber"] * c["conductivity"].abs().sqrt() * torch.stack([u[1], -u[0]]), None
