"""What a run has found so far: the rows of its history, its first and its last iterate, and its warnings."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..engine.loop import Iterate
from ..linalg.counts import Counts
from .solution import Row


@dataclass
class Records:
    """The records of one run.

    Attributes:
        warnings: sentences on what makes the result worse than it need be.
        rows: the rows of history.csv.
        first, last: the first and the last iterate, as they are reported; None before the first evaluation.
    """

    warnings: list[str]
    rows: list[Row] = field(default_factory=list)
    first: Iterate | None = None
    last: Iterate | None = None
    _evaluation_warned: bool = False

    def add(self, iterate: Iterate, row: Row) -> None:
        """Notes an iterate and its row. Warnings of evaluations differ in their numbers only: the first one stays."""
        self.first, self.last = self.first or iterate.without_oracle(), iterate
        self.rows.append(row)
        if iterate.evaluation.warning and not self._evaluation_warned:
            self.warnings.append(iterate.evaluation.warning)
            self._evaluation_warned = True


def history_row(iterate: Iterate, counts: Counts, seconds: float, scenarios: bool) -> Row:
    """The row of an iterate in history.csv; `scenarios` adds the columns of problems with random inputs."""
    evaluation = iterate.evaluation
    row: Row = {
        "iteration": iterate.iteration,
        "objective": evaluation.objective,
        "gradient_norm": iterate.gradient_norm,
        # Errors that nobody has measured are left empty.
        "state_residual": evaluation.state_error if evaluation.measured else None,
        "adjoint_residual": evaluation.adjoint_error if evaluation.measured else None,
        "gradient_error": evaluation.gradient_error if evaluation.measured else None,
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
