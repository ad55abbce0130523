"""The two kinds of problems that a run minimises: one problem, or one over many scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pde_problem import PDEProblem

if TYPE_CHECKING:
    # Problems without random inputs are solved without loading what scenarios need.
    from ..scenario_problem import ScenarioProblem

    OuterProblem = PDEProblem | ScenarioProblem


def nominal_of(problem: OuterProblem) -> PDEProblem:
    """The nominal problem; without random inputs this is the problem itself."""
    nominal: PDEProblem = getattr(problem, "nominal", problem)  # type: ignore[arg-type]
    return nominal
