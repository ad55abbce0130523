"""What a run has found so far: the rows of its history, its first and its last iterate, and its warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..engine.loop import Iterate
from ..linalg.counts import Counts
from ..pde_problem import PDEProblem
from ..problem_file.term_parts import term_names
from .answer import Row


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


def history_row(
    iterate: Iterate, counts: Counts, seconds: float, scenarios: bool, terms: Mapping[str, float] | None = None
) -> Row:
    """The row of an iterate in history.csv.

    Args:
        scenarios: add the columns of problems with random inputs.
        terms: the values of the terms of the objective, by name.
    """
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
        **{f"term_{name}": value for name, value in (terms or {}).items()},
    }
    if scenarios:
        row |= {
            "scenarios": evaluation.scenarios,
            "coarse_scenarios": evaluation.coarse_scenarios,
            "sampling_error": evaluation.left_out,
        }
    return row


def term_values(problem: PDEProblem, kinds: Sequence[str], state: np.ndarray, control: np.ndarray) -> dict[str, float]:
    """The value of each term of the objective at a state (1, N) and a control (p,), by names.

    It is empty where the terms are not known one by one: with random inputs, whose objective is no sum of them, and for
    an evolution whose states are not kept.
    """
    sections = problem.objective.sections
    if len(state) != 1 or len(sections) != len(kinds):
        return {}
    device = problem.equation.lift.device
    u, v = (torch.from_numpy(each).to(device) for each in (state, control))
    values = problem.objective.section_values(u, problem.control.physical(v))
    return dict(zip(term_names(kinds), values, strict=True))
