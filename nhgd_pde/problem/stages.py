"""Continuations: the same problem with milder numbers first, each stage solved from the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from ..inner.model import InnerModel
from ..pde.equation import StateEquation
from ..pde_problem import PDEProblem
from .constraints import ConstraintBuilder
from .entry import Entry


def staged(
    problem: PDEProblem,
    entries: Sequence[Entry],
    constraints: ConstraintBuilder,
    model_of: Callable[[StateEquation], InnerModel],
) -> PDEProblem:
    """The problem with its constraints and, as `earlier`, the stages before it.

    Spaces, metrics and filters are those of the problem in every stage, and so is the equation where its
    coefficients stay. Several continuations end together: a short one waits with its first stage.
    """
    changing = [entry for entry in entries if len(entry.stages) > 1]
    count = max([len(entry.stages) for entry in changing] + [len(each.factors) for each in constraints.states] + [1])

    def stage(k: int) -> PDEProblem:
        last = k == count - 1
        coefficients: dict[str, Tensor] = {}
        for entry in changing:
            coefficients.update(entry.stages[max(k - count + len(entry.stages), 0)])
        equation, model = problem.equation, problem.model
        if coefficients and not last:
            equation = _changed(equation, coefficients)
            model = model_of(equation)
        penalties = [
            each.term(constraints.terms, each.factors[max(k - count + len(each.factors), 0)])
            for each in constraints.states
        ]
        objective = problem.objective
        if penalties:
            objective = replace(objective, joint=(*objective.joint, *penalties))
        volume = constraints.volume_constraint(coefficients)
        return replace(
            problem,
            equation=equation,
            model=model,
            objective=objective,
            constraint=volume,
            reports=constraints.reports(volume),
        )

    *earlier, final = [stage(k) for k in range(count)]
    return replace(final, earlier=tuple(earlier))


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
