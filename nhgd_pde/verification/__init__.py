"""Derivative tests of a problem, for its author: the numbers that say whether a gradient can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from ..pde_problem import PDEProblem
from .assembled import assembled_checks
from .checks import Check, Verification, with_kinks, worst_of_each
from .local import local_checks
from .neighbourhood import UnsolvedError, placed
from .reduced import fisher_check, reduced_checks

__all__ = ["Check", "Verification", "verify_problem"]


def verify_problem(
    problem: PDEProblem,
    seed: int = 0,
    at: tuple[Tensor | None, Tensor] | None = None,
    place: str = "",
    scenarios: Iterable[tuple[PDEProblem, str]] = (),
) -> Verification:
    """Run every test at a random control and at rough states near its own, or at a given control and its state.

    Args:
        problem: the problem to test.
        seed: seed of the random directions.
        at: a state (S, n) to start from, or None, and a control (p,); None for random ones.
        place: description of this point, for the table.
        scenarios: the problems of further scenarios, and what these are called. Integrands and assembled derivatives
            are tested in each.
    """
    generator = torch.Generator().manual_seed(seed)
    checks: list[Check] = []
    try:
        where = placed(problem, generator, at)
        checks += local_checks(where)
        checks += assembled_checks(where)
        checks += reduced_checks(where)
        checks.append(fisher_check(where))
    except UnsolvedError as unsolved:
        checks.append(Check("hypergradient", math.nan, str(unsolved), False))
    except SingularMatrixError as singular:
        checks.append(Check("hypergradient", math.nan, f"the state cannot be solved: {singular}", False))
    v = None if at is None else at[1]
    further = [_renamed(check, told) for own, told in scenarios for check in _in_scenario(own, seed, v)]
    return Verification(problem.name, (*with_kinks(checks), *with_kinks(worst_of_each(further))), place)


def _in_scenario(problem: PDEProblem, seed: int, v: Tensor | None) -> list[Check]:
    """The tests of integrands and of assembled derivatives in one scenario."""
    try:
        where = placed(problem, torch.Generator().manual_seed(seed), None if v is None else (None, v))
        return [*local_checks(where), *assembled_checks(where)]
    except (UnsolvedError, SingularMatrixError) as unsolved:
        return [Check("state", math.nan, str(unsolved), False)]


def _renamed(check: Check, told: str) -> Check:
    """The test, named as one of scenarios, with the scenario in its remark if it fails."""
    remark = check.remark if check.passed else "; ".join(filter(None, [check.remark, told]))
    return replace(check, name=f"scenarios: {check.name}", remark=remark)
