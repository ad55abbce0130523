"""The maps of controls into the coefficients of a PDE."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..pde.form import Coefficients, ControlMap


def added(name: str, gain: str = "gain", component: int | None = None) -> ControlMap:
    """The map that adds gain * v to a coefficient, or to one component of it."""

    def enter(coefficients: Coefficients, v: Tensor) -> Coefficients:
        contribution = coefficients[gain] * v
        if component is None:
            return {**coefficients, name: coefficients[name] + contribution}
        rows = list(coefficients[name])
        rows[component] = rows[component] + contribution
        return {**coefficients, name: torch.stack(torch.broadcast_tensors(*rows))}

    return enter


def replaced(name: str, by: Callable[[Coefficients, Tensor], Tensor], region: Tensor | None = None) -> ControlMap:
    """The map that makes a coefficient a function of the coefficients and v, everywhere or in a region (P,) of ones."""

    def enter(coefficients: Coefficients, v: Tensor) -> Coefficients:
        value = by(coefficients, v)
        if region is not None:
            value = torch.where(region > 0.0, value, coefficients[name])
        return {**coefficients, name: value}

    return enter
