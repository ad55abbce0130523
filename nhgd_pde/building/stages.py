"""Continuations: the same problem with milder numbers first, each stage solved from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..objective.state_bounds import StateBounds
from ..pde.equation import StateEquation
from .entry import Entry


def stages_of(entries: Sequence[Entry]) -> tuple[dict[str, Tensor], ...]:
    """The coefficients of the controls that change from stage to stage, in each stage; the last one is the problem.

    Several continuations end together: a short one waits with its first stage.
    """
    changing = [entry.stages for entry in entries if len(entry.stages) > 1]
    count = max([1, *map(len, changing)])
    found: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for own in changing:
        for k, coefficients in enumerate(found):
            coefficients.update(own[max(k - count + len(own), 0)])
    return tuple(found)


def bounds_in(bounds: StateBounds, equation: StateEquation) -> StateBounds:
    """The bounds, with the coefficients marked as given that neither the equation nor a control changes."""
    given = torch.ones(equation.size, dtype=torch.bool)
    given[torch.from_numpy(np.asarray(equation.free, dtype=np.int64))] = False
    if equation.data is not None:
        given[torch.from_numpy(equation.data.touched)] = False
    if equation.zero_mean is not None:
        given[equation.zero_mean.pinned] = False
    device = equation.lift.device
    indices = bounds.indices.to(device)
    return replace(bounds, indices=indices, given=given.to(device)[indices])
