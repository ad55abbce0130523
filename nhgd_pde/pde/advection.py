"""Advection and diffusion: -div(conductivity grad u) + velocity . grad u + reaction u = source.

Where advection dominates on the scale of a cell, Galerkin's method oscillates. The streamline-upwind Petrov-Galerkin
method (A. N. Brooks, T. J. R. Hughes, Comput. Methods Appl. Mech. Engrg. 32 (1982) 199-259) tests the strong residual

    r(u) = -div(conductivity grad u) + velocity . grad u + reaction u - source

with tau velocity . grad phi, cell by cell:

    tau = h / (2 |b|) xi(Pe),   Pe = |b| h / (2 k),   k the conductivity along the velocity b.

r(u) vanishes for the exact solution, so that the order of convergence is kept for any tau. It contains all coefficients
that a control changes, so that the adjoint belongs to the stabilised equation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .form import ClosedForm, Coefficients, Pointwise
from .poisson import conduction, conduction_blocks, source_load

# The function xi of the Peclet number Pe.
Upwinding = Callable[[Tensor], Tensor]


def optimal(peclet: Tensor) -> Tensor:
    """xi = coth Pe - 1/Pe: linear elements in one dimension are then exact at the nodes."""
    small = peclet < 1e-2
    safe = torch.where(small, torch.ones_like(peclet), peclet)
    return torch.where(small, peclet / 3.0, 1.0 / torch.tanh(safe) - 1.0 / safe)


def critical(peclet: Tensor) -> Tensor:
    """xi = max(0, 1 - 1/Pe), the least value with which linear elements in one dimension do not oscillate."""
    return torch.relu(1.0 - 1.0 / peclet.clamp(min=1.0))


def velocity(c: Coefficients, dim: int) -> list[Tensor]:
    """The components of the velocity, each (P,) or (S, P)."""
    return [c[f"velocity {i}"] for i in range(dim)]


def advection_diffusion(upwinding: Upwinding | None = None) -> Pointwise:
    """int (velocity . grad u + reaction u - source) phi + conductivity grad u . grad phi, stabilised with `upwinding`.

    The stabilisation adds the integral of r(u) tau velocity . grad phi over each cell.

    The conductivity is as in `poisson`; `cell_length` (P,) is h. Where second derivatives of the elements do not
    vanish, u has a second field with them (`with_second_derivatives`): the Laplacian, or conductivity : grad grad u if
    the conductivity is anisotropic. `slope` (dim, 1, P) is the divergence of the columns of the conductivity.
    """

    def form(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
        curved = u.ndim == 3
        value, slopes = (u[0], grad[0]) if curved else (u, grad)
        b = velocity(c, len(slopes))
        carried = sum(component * slope for component, slope in zip(b, slopes, strict=True))
        density = carried + c["reaction"] * value - c["source"]
        flux = conduction(value, slopes, c)
        if upwinding is not None:
            strong = density - (c["slope"] * slopes).sum(0)
            if curved:
                strong = strong - (c["conductivity"] * u[1] if c["conductivity"].ndim <= 2 else u[1])
            weighted = stabilisation_time(c, b, upwinding) * strong
            flux = flux + torch.stack([component * weighted for component in b])
        if not curved:
            return density, flux
        return torch.stack([density, torch.zeros_like(density)]), torch.stack([flux, torch.zeros_like(flux)])

    return form


def stabilisation_time(c: Coefficients, b: list[Tensor], upwinding: Upwinding) -> Tensor:
    """tau at the points, (P,) or (S, P)."""
    square = sum(component * component for component in b)
    assert isinstance(square, Tensor)
    # Where the velocity is zero, tau has to be finite; its factors are zero.
    square = square.clamp(min=torch.finfo(square.dtype).tiny ** 0.5)
    k, h = c["conductivity"], c["cell_length"]
    if k.ndim > 2:
        k = sum(b[i] * k[i, j] * b[j] for i in range(len(b)) for j in range(len(b))) / square
    speed = square.sqrt()
    return h / (2.0 * speed) * upwinding(speed * h / (2.0 * k))


def _blocks(c: Coefficients, dim: int) -> dict[tuple[int, int], Tensor]:
    carried = {(0, 1 + i): component for i, component in enumerate(velocity(c, dim))}
    return {(0, 0): c["reaction"], **carried, **conduction_blocks(c, dim)}


# The form without upwinding, in closed form.
CLOSED_ADVECTION = ClosedForm(_blocks, source_load)
