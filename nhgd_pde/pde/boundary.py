"""Conditions on the boundary: fluxes or tractions, and exchange with surroundings.

They act on the first fields of a state, as many as the data has components.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .form import Coefficients


def neumann(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, None]:
    """Boundary flux conductivity du/dn = flux."""
    return _of_first(-c["flux"], u), None


def robin(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, None]:
    """Exchange with surroundings at `value`: conductivity du/dn = coefficient (value - u)."""
    first = u if u.ndim == 2 else u[0] if c["value"].ndim <= 2 else u[: len(c["value"])]
    return _of_first(c["coefficient"] * (first - c["value"]), u), None


def _of_first(density: Tensor, u: Tensor) -> Tensor:
    """A density of the first fields, with zeros for the other fields; (fields, S, P), or (S, P) of a scalar."""
    if u.ndim == 2:
        return density
    # The data of a scalar may stand beside further fields, such as its rate.
    density = density.expand(u.shape[1:])[None] if density.ndim <= 2 else density.expand(-1, *u.shape[1:])
    return density if len(density) == len(u) else torch.cat([density, torch.zeros_like(u[len(density) :])])
