"""How the iterates and the answer of a problem with an equation are shown, as fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ..engine.loop import Iterate
from ..engine.oracle import Unsolved
from ..output.fields import FieldData, Grid
from ..pde_problem import PDEProblem
from ..problem import Problem
from .answer import Answer
from .drawing import control_fields, control_numbers, density_fields, output_grid
from .outer_problem import nominal_of
from .records import term_values
from .result_fields import subdomain_numbers, with_magnitudes
from .scenario_fields import iterate_fields
from .solution import Solution

if TYPE_CHECKING:
    from .inferred import Inferred
    from .judgement import Judgement
    from .outcome import Outcome
    from .outer_problem import OuterProblem


class Presentation(Protocol):
    """What a kind of problem makes of iterates and of the end of a run."""

    def frame(self, solved: Any, iterate: Iterate) -> tuple[Grid, FieldData] | None:
        """The fields of an iterate, for the series in `fields/`; None for none."""
        ...

    def terms(self, solved: Any, iterate: Iterate) -> dict[str, float]:
        """The value of each term of the objective at an iterate, by name; empty where they are not known."""
        ...

    def entries(self, outcome: Outcome) -> dict[str, Any]:
        """Further entries of summary.json."""
        ...

    def answer(self, outcome: Outcome) -> Answer:
        """The result of `solve`."""
        ...

    def answer_of(self, values: Mapping[str, Any], solved: Any, judgement: Judgement | None) -> Answer:
        """The result of `solve`, from what is known of it.

        Args:
            values: those of `Outcome.common` and of `Answer.state_arrays`.
            solved: the outer problem that was minimised last.
        """
        ...


def presentation_of(problem: Any) -> Presentation:
    """The presentation of what `load` has returned."""
    if isinstance(problem, Problem):
        return FieldPresentation(problem)
    # Problems with an equation are solved without loading what tasks need.
    from .task_presentation import TaskPresentation

    return TaskPresentation(problem)


@dataclass(frozen=True, eq=False)
class FieldPresentation:
    """The presentation of a problem with an equation: fields on its mesh."""

    problem: Problem

    @cached_property
    def _grid(self) -> Grid:
        return output_grid(self.problem.pde)

    def frame(self, solved: OuterProblem, iterate: Iterate) -> tuple[Grid, FieldData]:
        pde, control = self.problem.pde, iterate.evaluation.v.cpu().numpy()
        states = iterate_fields(solved, iterate, self.problem.file.spec.output.exceedance)
        point, cell = control_fields(pde, control)
        more_points, more_cells = density_fields(pde, control)
        return self._grid, FieldData({**with_magnitudes(states), **point, **more_points}, {**cell, **more_cells})

    def terms(self, solved: OuterProblem, iterate: Iterate) -> dict[str, float]:
        """The value of each term of the objective at an iterate, by name; empty with random inputs."""
        if self.problem.scenarios is not None or isinstance(iterate.oracle, Unsolved):
            return {}
        kinds = self.problem.file.spec.term_kinds
        v = iterate.evaluation.v
        state = solved.state(iterate.oracle.u, v).cpu().numpy()
        return term_values(nominal_of(solved), kinds, state, v.cpu().numpy())

    def entries(self, outcome: Outcome) -> dict[str, Any]:
        """The linear solver, controls that are numbers, the terms of the objective, and how well constraints hold."""
        pde, last = nominal_of(outcome.solved), outcome.found.last
        v = last.evaluation.v
        found: dict[str, Any] = {
            "solver": self.problem.solver,
            "controls": control_numbers(pde, v.cpu().numpy()),
            "terms": self.terms(outcome.solved, last),
        }
        if pde.space.domain.subdomains:
            found["subdomains"] = subdomain_numbers(pde.space.domain)[1]
        if pde.reports:
            state = outcome.solved.state(last.oracle.u, v)
            found["constraints"] = [dict(each.report(state, v)) for each in pde.reports]
        return found

    def answer(self, outcome: Outcome) -> Solution:
        last = outcome.found.last
        state = outcome.solved.state(last.oracle.u, last.evaluation.v).cpu().numpy()
        values = {
            **outcome.common(),
            "state": state,
            "adjoint": adjoint_of(nominal_of(outcome.solved), last, len(state)),
        }
        return self.answer_of(values, outcome.solved, outcome.judgement)

    def answer_of(self, values: Mapping[str, Any], solved: OuterProblem, judgement: Judgement | None) -> Solution:
        threshold = self.problem.file.spec.output.exceedance
        problem, inferred = nominal_of(solved), self._inferred(values, solved)
        return Solution(**values, problem=problem, judgement=judgement, threshold=threshold, inferred=inferred)

    def _inferred(self, values: Mapping[str, Any], solved: OuterProblem) -> Inferred | None:
        spec = self.problem.file.spec
        if spec.inference is None:
            return None
        # Other problems are solved without loading what a posterior needs.
        from .inferred import Inferred

        v = torch.from_numpy(values["control"]).to(self.problem.device)
        return Inferred(nominal_of(solved), spec.inference, v, values["status"], spec.seed)


def adjoint_of(pde: PDEProblem, last: Iterate, scenarios: int) -> np.ndarray:
    """(scenarios, N) the adjoint variable at an iterate; zeros where the run failed before there was one."""
    p: torch.Tensor | None = getattr(last.oracle, "p", None)
    q = getattr(last.oracle, "q", None)
    if p is None and q is not None:
        p = pde.adjoint_state(last.oracle.u, last.evaluation.v, q)
    adjoint = np.zeros((scenarios, pde.equation.size))
    if p is not None and math.isfinite(last.evaluation.value):
        adjoint[:, pde.equation.free] = p.cpu().numpy()
    return adjoint
