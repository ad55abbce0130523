"""The equation of Allen and Cahn, u_t - epsilon lap u + (u^3 - u)/epsilon = source, with the phases -1 and 1."""

from __future__ import annotations

from torch import Tensor

from .form import Coefficients


def allen_cahn(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int ((u^3 - u)/epsilon - source) phi + epsilon grad u . grad phi."""
    return (u**3 - u) / c["epsilon"] - c["source"], c["epsilon"] * grad
