"""Derivative tests of a problem, for its author: the numbers that say whether a gradient can be trusted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from ..pde_problem import PDEProblem
from .assembled import assembled_checks
from .checks import Check, Verification, with_kinks
from .local import local_checks
from .point import UnsolvedError, placed
from .reduced import fisher_check, reduced_checks

__all__ = ["Check", "Verification", "verify_problem"]


def verify_problem(
    problem: PDEProblem, seed: int = 0, at: tuple[Tensor | None, Tensor] | None = None, place: str = ""
) -> Verification:
    """Run every test at a random control and at rough states near its own, or at a given control and its state.

    Args:
        problem: the problem to test.
        seed: seed of the random directions.
        at: a state (S, n) to start from, or None, and a control (p,); None for random ones.
        place: description of this point, for the table.
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
    return Verification(problem.name, tuple(with_kinks(checks)), place)
