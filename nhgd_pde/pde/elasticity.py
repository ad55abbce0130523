"""Linear elasticity of an isotropic material: -div sigma(u) = source, sigma = lambda tr(eps) I + 2 mu eps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .form import Coefficients, Pointwise

# In 2-D either the strain or the stress across the plane vanishes. In 3-D the value is None.
Plane = Literal["strain", "stress"] | None


def elasticity(plane: Plane) -> Pointwise:
    """int sigma(u) : grad phi - source . phi, with `source` (dim, S or 1, P)."""

    def form(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
        return -c["source"], stress(grad, c, plane)

    return form


def stress(grad: Tensor, c: Coefficients, plane: Plane) -> Tensor:
    """Hooke's law: displacement gradients (dim, dim, S, P), [i, j] = du_i/dx_j -> stresses of the same shape.

    `young` and `poisson_ratio` are (P,) or (S, P). In plane stress lambda is 2 lambda mu / (lambda + 2 mu) of the
    solid, at which the stress across the plane vanishes.
    """
    young, ratio = c["young"], c["poisson_ratio"]
    shear = young / (1.0 + ratio)
    lame = shear * ratio / (1.0 - (ratio if plane == "stress" else 2.0 * ratio))
    # Entries are computed one by one, because derivatives of whole matrices would also compute with their zeros.
    slopes = [row.unbind() for row in grad.unbind()]
    axes = range(len(slopes))
    pressure = lame * sum((slopes[i][i] for i in axes[1:]), slopes[0][0])
    stresses = [
        shear * slopes[i][i] + pressure if i == j else 0.5 * shear * (slopes[i][j] + slopes[j][i])
        for i in axes
        for j in axes
    ]
    return torch.stack(stresses).reshape(grad.shape)


def stresses(u: Tensor, grad: Tensor, c: Coefficients, plane: Plane) -> dict[str, Tensor]:
    """The stress (3, 3, S, P) of a body, its part across the plane included, and the stress of von Mises (S, P).

    Across the plane the stress is poisson_ratio (sigma_xx + sigma_yy) in plane strain, and zero in plane stress.
    """
    inside = stress(grad, c, plane)
    whole = inside.new_zeros(3, 3, *inside.shape[2:])
    whole[: len(inside), : len(inside)] = inside
    if plane == "strain":
        whole[2, 2] = c["poisson_ratio"] * (inside[0, 0] + inside[1, 1])
    mean = (whole[0, 0] + whole[1, 1] + whole[2, 2]) / 3.0
    identity = torch.eye(3, dtype=whole.dtype, device=whole.device)[:, :, None, None]
    deviator = whole - mean * identity
    return {"stress": whole, "von_mises": (1.5 * deviator.square().sum((0, 1))).sqrt()}
