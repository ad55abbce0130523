"""TorchOpt: conjugate gradients as its implicit differentiation uses them (torchopt.linear_solve)."""

from __future__ import annotations

import warnings
from functools import partial

from torch import Tensor

from ...engine.bilevel import BilevelProblem
from .bridge import hessian, load

MODULE = "torchopt.linear_solve"
NAME = "torchopt"
SETTING = "solve_cg, rtol 1e-14"
NOTE = "its default is solve_normal_cg, on the normal equations: condition number squared"


def hypergradient(problem: BilevelProblem, u: Tensor, v: Tensor, steps: int, solver: str = "solve_cg") -> Tensor:
    """The hypergradient (p,) after at most some steps of one of the library's solvers."""
    inner, outer = problem.outer_derivatives(u, v)
    solve = getattr(load(MODULE), solver)(maxiter=steps, rtol=1e-14)
    with warnings.catch_warnings():
        # It still calls functions that torch has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        q = solve(hessian(problem, u, v), inner)
    return outer - problem.cross_product(u, v, q.detach())


# The hypergradient with the solver that the library takes by default.
normal_hypergradient = partial(hypergradient, solver="solve_normal_cg")
