"""The rows of history.csv."""

from __future__ import annotations

from ..engine.loop import Iterate
from ..linalg.counts import Counts
from .solution import Row


def history_row(iterate: Iterate, counts: Counts, seconds: float, scenarios: bool = False) -> Row:
    """The row of an iterate; `scenarios` adds the columns of problems with random inputs."""
    evaluation = iterate.evaluation
    row: Row = {
        "iteration": iterate.iteration,
        "objective": evaluation.objective,
        "gradient_norm": iterate.gradient_norm,
        "state_residual": evaluation.state_error,
        "adjoint_residual": evaluation.adjoint_error,
        "gradient_error": evaluation.gradient_error,
        "step": iterate.step,
        "evaluations": iterate.evaluations,
        "inner_steps": evaluation.inner_steps,
        "refinement_steps": evaluation.refinement_steps,
        "solves": counts.solves,
        "factorisations": counts.factorisations,
        "seconds": seconds,
    }
    if scenarios:
        row |= {
            "scenarios": evaluation.scenarios,
            "coarse_scenarios": evaluation.coarse_scenarios,
            "sampling_error": evaluation.left_out,
        }
    return row
