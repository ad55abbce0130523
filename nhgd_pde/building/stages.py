"""Continuations: the same problem with milder numbers first, each stage solved from the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..inner.model import InnerModel
from ..objective.state_bounds import StateBounds
from ..pde.equation import StateEquation
from ..pde_problem import PDEProblem
from .constraint_builder import ConstraintBuilder
from .entry import Entry


def staged(
    problem: PDEProblem,
    entries: Sequence[Entry],
    constraints: ConstraintBuilder,
    model_of: Callable[[StateEquation], InnerModel],
) -> PDEProblem:
    """The problem with its constraints and, as `earlier`, the stages before it.

    Bounds of the state belong to every stage: one round of their multipliers for each, and for the last one as many as
    it takes. Spaces, metrics and filters are those of the problem in every stage, and so is the equation where its
    coefficients stay. Several continuations end together: a short one waits with its first stage.
    """
    changing = [entry for entry in entries if len(entry.stages) > 1]
    count = max([len(entry.stages) for entry in changing] + [1])
    bounds = tuple(_of_equation(each, problem.equation) for each in constraints.states)

    def stage(k: int) -> PDEProblem:
        last = k == count - 1
        coefficients: dict[str, Tensor] = {}
        for entry in changing:
            coefficients.update(entry.stages[max(k - count + len(entry.stages), 0)])
        equation, model = problem.equation, problem.model
        if coefficients and not last:
            equation = _changed(equation, coefficients)
            model = model_of(equation)
        volume = constraints.volume_constraint(coefficients)
        return replace(
            problem,
            equation=equation,
            model=model,
            constraint=volume,
            reports=() if volume is None else (volume,),
            state_bounds=bounds,
        )

    *earlier, final = [stage(k) for k in range(count)]
    return replace(final, earlier=tuple(earlier))


def _of_equation(bounds: StateBounds, equation: StateEquation) -> StateBounds:
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


def _changed(equation: StateEquation, coefficients: dict[str, Tensor]) -> StateEquation:
    """The equation with other values of some of the coefficients that its integrals have."""
    integrals = tuple(
        replace(
            integral,
            coefficients={name: coefficients.get(name, value) for name, value in integral.coefficients.items()},
        )
        for integral in equation.integrals
    )
    return replace(equation, integrals=integrals)
