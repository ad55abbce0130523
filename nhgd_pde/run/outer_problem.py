"""The two kinds of problems that a run minimises: one problem, or one over many scenarios."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..pde_problem import PDEProblem

if TYPE_CHECKING:
    # Problems without random inputs are solved without loading what scenarios need.
    from ..scenario_problem import ScenarioProblem

    OuterProblem = PDEProblem | ScenarioProblem


def nominal_of(problem: OuterProblem) -> PDEProblem:
    """The nominal problem; without random inputs this is the problem itself."""
    nominal: PDEProblem = getattr(problem, "nominal", problem)  # type: ignore[arg-type]
    return nominal


def starting_at(problem: Any, v: Tensor, u: Tensor | None = None) -> Any:
    """The problem with a control (p,) as its start.

    Args:
        u: (1, n) an estimate of its state; None: it is estimated as at the start of the file.
    """
    if isinstance(problem, PDEProblem):
        v = v.to(problem.control.initial)
        return replace(problem, origin=(problem.cold_start(v) if u is None else u.to(v), v))
    if hasattr(problem, "nominal"):
        return replace(problem, nominal=starting_at(problem.nominal, v))
    # A task: its first weights go with every start.
    u, first = problem.first
    return replace(problem, first=(u, v.to(first)))
