"""Products with the Hessian of the misfit, second derivatives of the equation included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .forward_map import ForwardMap


def misfit_hessian(forward: ForwardMap) -> Callable[[Tensor], Tensor]:
    """The products H d for rows (k, p), with the Hessian of the objective without the terms of the control."""
    problem = forward.problem
    misfit = replace(problem, objective=replace(problem.objective, control=()))
    hessian = forward.point.hessian_of(misfit)
    return lambda rows: torch.stack([hessian(d) for d in rows])
