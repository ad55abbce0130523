"""The answer of a problem with an equation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..output.fields import FieldData, Grid
from ..output.names import EVOLUTION, FINAL
from ..pde_problem import PDEProblem
from .answer import Answer, picture_words
from .drawing import final_fields, levels, split_controls
from .scenario_fields import named_fields, statistics_fields

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..discretisation import ErrorEstimate
    from ..inference.posterior import Posterior
    from ..output.controls_over_time import TimeCurve
    from ..output.field_layout import Pictured
    from .inferred import Inferred
    from .judgement import Judgement
    from .mesh_record import MeshRecord


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Solution(Answer):
    """The result of `solve`, for a problem with an equation.

    Attributes:
        state: (S, N) coefficients of the state, one row a scenario, Dirichlet values included; of an evolution those
            of all times, see `evolution`.
        adjoint: (S, N) coefficients of the adjoint variable; zeros where the run failed before there was one.
        problem: the problem that was solved; with random inputs, the problem with all of them at their middle.
        judgement: with random inputs, the objective in the scenarios of the sample and in fresh ones.
        threshold: the value of the state whose exceedance is drawn.
        levels: with `mesh.adapt`, what was found on each mesh, the rows of levels.csv; the solution is on the last.
        inferred: the posterior of the problem file's `inference`; see `posterior`.
        estimate: the estimate of the discretisation error; None where the run made none.
    """

    state: np.ndarray
    adjoint: np.ndarray
    problem: PDEProblem
    judgement: Judgement | None = None
    threshold: float | None = None
    levels: tuple[MeshRecord, ...] = ()
    inferred: Inferred | None = None
    estimate: ErrorEstimate | None = None

    @staticmethod
    def load(folder: str | Path) -> Answer:
        """The solution of a run that has ended, from its run folder; of a task a `TaskSolution`.

        The folder is one of `solve(problem, output=folder)`, of the command line, or of `save`. The problem is built
        again, and its last iterate is read from the checkpoint, or from the solution that `save` has written. With
        random inputs the answer is judged again, in all scenarios.

        Raises:
            OutputError: there is no run that has ended, or its checkpoint or saved solution is missing or damaged.
            ProblemError: the problem can no longer be built, for example because a file that it names is gone.
        """
        from .recall import recalled

        return recalled(folder)

    @property
    def controls(self) -> dict[str, np.ndarray]:
        """The coefficients of each control by its name.

        Arrays (m,), or (steps, m) or (windows, m) where the control varies in time.
        """
        return split_controls(self.problem, self.control)

    @property
    def times(self) -> np.ndarray:
        """(levels,) times of an evolution: 0 and the ends of the steps, or the end alone; [0] for a steady problem."""
        # Of an evolution whose states are not all kept there is the state at the end.
        end = getattr(self.problem, "end", None)
        return self.problem.equation.measure * np.arange(levels(self.problem)) if end is None else np.array([end])

    @property
    def evolution(self) -> np.ndarray:
        """(levels, nodes) coefficients of the state at each of `times`, the initial values first.

        Several fields follow one after the other. A steady problem has one level.
        """
        return self.state[0].reshape(levels(self.problem), -1)

    def fields(self, level: int = -1) -> tuple[Grid, FieldData]:
        """The mesh, and all fields of final.vtu as arrays: state, control, target, adjoint, sensitivity.

        The second value has the fields at nodes in `.point`, those of cells in `.cell`, by name. The first one has the
        coordinates in `.points` (nodes, dim) and the nodes of each cell in `.cells`.

        In the cells there are the numbers of subdomains, the coefficients of the equation as they enter it and, for
        elasticity, the stresses: means over each cell.

        With random inputs the state is a mean, beside which stand its standard deviation, the probability that it
        exceeds the threshold, and the states of the scenarios with the best, the median and the worst objective.

        Args:
            level: which of `times` of an evolution; by default the last.
        """
        judged, adjoint, states = self.judgement, self.adjoint, None
        if judged is not None:
            count, weights = len(self.state), self._weights
            states = statistics_fields(self.problem, self.state, weights, self.threshold, level)
            states |= named_fields(self.problem, self.state, judged.values[:count], level)
            adjoint = (weights @ adjoint)[None]
        grid, data = final_fields(self.problem, self.state, self.control, adjoint, self.gradient, level, states)
        if self.estimate is not None:
            data = replace(data, cell={**data.cell, "error_indicator": self.estimate.indicator})
        return grid, data

    @property
    def _weights(self) -> np.ndarray:
        """(S,) the weights of the scenarios whose states are known."""
        if self.judgement is None:
            return np.full(len(self.state), 1.0 / len(self.state))
        weights = self.judgement.weights[: len(self.state)]
        return np.asarray(weights / weights.sum())

    def where(self, series: bool, picture: bool = False) -> str:
        first, script = f"open {picture_words(picture)}", "or load paraview_state.py there as a state"
        if levels(self.problem) == 1:
            iterates = "; fields/state.pvd has the iterations" if series else ""
            return f"{first}{FINAL} in ParaView, {script}{iterates}"
        iterates = "; in fields/state.pvd it is the iteration" if series else ""
        return f"{first}{EVOLUTION}/{EVOLUTION}.pvd in ParaView, {script}: its time is that of the problem{iterates}"

    def sensors(self) -> tuple[Grid, FieldData] | None:
        """The sensors of the objective as points, with measured and computed values, misfits and weights.

        None for a problem without sensors.

        With random inputs the computed values are means over the scenarios, beside their standard deviations. Of an
        evolution they belong to the times of the measurements; where its states are not all kept, its steps are made
        once more for them.
        """
        if not self.problem.sensors:
            return None
        from .point_results import sensor_points

        return sensor_points(self.problem, self.state, self.control, self._weights)

    def boundary(self, level: int = -1) -> tuple[Grid, FieldData] | None:
        """The parts of the boundary that controls act on, with control and sensitivity; None without such a control.

        Args:
            level: which of `times` of an evolution; by default the last.
        """
        if all(part.facets is None for part in self.problem.control.parts):
            return None
        from .point_results import boundary_controls

        return boundary_controls(self.problem, self.control, self.gradient, level)

    def boundary_frames(self) -> Iterator[tuple[Grid, FieldData]]:
        """What `boundary` returns, at each of `times`; none where no control on the boundary varies in time."""
        varies = any(part.facets is not None and part.steps is not None for part in self.problem.control.parts)
        every = (self.boundary(level) for level in range(levels(self.problem) if varies and len(self.times) > 1 else 0))
        return (frame for frame in every if frame is not None)

    def frames(self) -> Iterator[tuple[Grid, FieldData]]:
        """The fields of an evolution at each of `times`; none of a steady problem."""
        count = levels(self.problem)
        return (self.fields(level) for level in range(count if count > 1 else 0))

    def posterior(self) -> Posterior:
        """The posterior of an inverse problem, for a problem file with a section `inference`; computed once.

        Raises:
            ValueError: the file has no such section; the run has not converged; the control is no minimum.
        """
        if self.inferred is None:
            raise ValueError("expected a problem file with a section inference, found one without")
        return self.inferred.posterior

    def posterior_fields(self) -> tuple[Grid, FieldData] | None:
        return None if self.inferred is None or not self.complete else self.inferred.fields()

    def posterior_numbers(self) -> Mapping[str, Any]:
        return {} if self.inferred is None or not self.complete else self.inferred.numbers()

    def posterior_lines(self) -> list[str]:
        return [] if self.inferred is None else self.inferred.lines()

    def control_curves(self) -> Iterator[TimeCurve]:
        """The controls that vary in time, as curves with their bounds; of those that are fields, their norm over time.

        Each has `control` (a name), `label`, and arrays: a value of `values` is that from `starts` to `ends`.
        """
        if all(part.steps is None for part in self.problem.control.parts):
            return iter(())
        from .control_curves import control_curves

        return control_curves(self.problem, self.control)

    def state_arrays(self) -> Mapping[str, np.ndarray]:
        return {"state": self.state, "adjoint": self.adjoint}

    def scenario_rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows of scenarios.csv, a mapping each; none without random inputs."""
        return iter(()) if self.judgement is None else self.judgement.rows()

    @property
    def terms(self) -> dict[str, float]:
        """The value of each term of the objective, by its kind; their sum is the objective.

        Several terms of one kind are numbered by their places in the file, such as `tracking_2`. It is empty with
        random inputs, and for an evolution whose states are not all kept.
        """
        return dict(self.stats["terms"])

    def evaluate(self, points: np.ndarray, name: str = "state", level: int = -1) -> np.ndarray:
        """Values (k,), (k, components) or (k, 3, 3) of a field at points.

        Args:
            points: (k, dim) coordinates, in the unit of the mesh.
            name: the name of a field of final.vtu, such as `control`, `target`, `adjoint`, `displacement`. `state` is
                the state of every problem: of a flow its velocity, of a Helmholtz equation complex values.
            level: which of `times` of an evolution; by default the last.

        Raises:
            ValueError: there is no such field, or a point is outside the mesh.
        """
        from .field_values import values_at

        return values_at(self.problem, self.fields(level)[1], points, name)

    def integrate(self, expression: str | float, on: str | None = None, level: int = -1) -> float:
        """The integral of an expression such as `(state - target)**2` over the domain, or over a part of it.

        Args:
            expression: in x, y, z, r, t and the names of the fields of final.vtu; components of a vector are
                `velocity_x`, ..., those of a matrix `stress_xy`, ...
            on: a subdomain or a part of the boundary; by default the whole domain.
            level: which of `times` of an evolution; by default the last.

        Raises:
            ValueError: there is no such part, or the expression is wrong.
        """
        from .field_values import integral

        return integral(self.problem, self.fields(level)[1], expression, on)

    def plot(self, level: int | None = None) -> Figure:
        """A figure of matplotlib: state, controls, density and targets, measured and computed values, and convergence.

        Of a body in 3-D the middle slice is drawn.

        Args:
            level: which of `times` of an evolution; by default several of them.
        """
        from ..output.field_layout import pictured
        from ..output.figure import title_of
        from ..output.pictures import picture

        shown = self.fields_to_draw(level)
        return picture(shown, pictured(shown.data), title_of(self.stats), self.history)

    def fields_to_draw(self, level: int | None = None) -> Pictured:
        """The fields that `plot` draws."""
        from ..output.field_layout import Pictured, dimension, shown_levels

        grid, data = self.fields(-1 if level is None else level)
        chosen = shown_levels(len(self.times), dimension(grid)) if level is None else []
        moments = [self.fields(each)[1] for each in chosen]
        return Pictured(grid, data, moments, tuple(self.control_curves()), self.sensors())

    def plot_distribution(self) -> Figure:
        """The distribution of the objective over fresh scenarios, or those of the sample.

        Raises:
            ValueError: a problem without random inputs.
        """
        from ..output.pictures import histogram

        judged = self.judgement
        if judged is None:
            raise ValueError("expected a problem with random inputs, found one without")
        fresh = len(judged.fresh) > 0
        values, weights = (judged.fresh, judged.drawn.weights) if fresh else (judged.values, judged.weights)
        marks = {judged.risk.name: judged.out_of_sample if fresh else judged.in_sample}
        return histogram(values, weights, marks, f"{self.problem.name}: objective in {len(values):,} scenarios")
