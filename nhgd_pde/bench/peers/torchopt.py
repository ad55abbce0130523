"""TorchOpt: conjugate gradients as its implicit differentiation uses them (torchopt.linear_solve)."""

from __future__ import annotations

import warnings

from torch import Tensor

from ...engine.bilevel import BilevelProblem
from .bridge import hessian, load, missing

NAME = "torchopt"
SETTING = "solve_cg, rtol 1e-14"
NOTE = "its default is solve_normal_cg, on the normal equations: condition number squared"


def available() -> str | None:
    """Why it cannot be used."""
    return missing("torchopt.linear_solve", NAME)


def hypergradient(problem: BilevelProblem, u: Tensor, v: Tensor, steps: int) -> Tensor:
    """The hypergradient (p,) after at most some steps."""
    return _hypergradient(problem, u, v, steps, "solve_cg")


def normal_hypergradient(problem: BilevelProblem, u: Tensor, v: Tensor, steps: int) -> Tensor:
    """The same with what the library takes by default."""
    return _hypergradient(problem, u, v, steps, "solve_normal_cg")


def _hypergradient(problem: BilevelProblem, u: Tensor, v: Tensor, steps: int, solver: str) -> Tensor:
    inner, outer = problem.outer_derivatives(u, v)
    solve = getattr(load("torchopt.linear_solve"), solver)(maxiter=steps, rtol=1e-14)
    with warnings.catch_warnings():
        # It still calls functions that torch has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        q = solve(hessian(problem, u, v), inner)
    return outer - problem.cross_product(u, v, q.detach())
