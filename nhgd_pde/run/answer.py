"""What the answers of all kinds of problems have, and their certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.loop import Status
from ..output.fields import FieldData, Grid
from ..output.names import FIGURE, SOLUTION
from ..output.result_files import RESULTS
from ..output.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..output.controls_over_time import TimeCurve
    from ..output.field_layout import Pictured
    from ..problem import Problem
    from ..reports.material import Material
    from ..task_problem import TaskProblem

Row = dict[str, float | int | str | None]


def picture_words(there: bool) -> str:
    return f"{FIGURE} in any viewer, " if there else ""


@dataclass(frozen=True)
class Certificate:
    """How far the answer is from satisfying its equations.

    Attributes:
        state_residual: bound of the relative error of the state: |R|_{K^-1} / |u|_K, divided by the inf-sup constant.
            Over scenarios, and for the methods of comparison, it is not divided by that constant.
        adjoint_residual: the same bound for the adjoint variable.
        gradient_error: estimate of the error of the gradient that these two leave.
    """

    state_residual: float
    adjoint_residual: float
    gradient_error: float


@dataclass(frozen=True, eq=False)
class Source:
    """The problem that a solution belongs to.

    Attributes:
        stage: number of the stage of a continuation that was solved last.
        rounds: the relaxations of its bounds of the state, see `rounds.saved`; None without bounds.
    """

    problem: Problem | TaskProblem
    stage: int
    rounds: list[dict[str, Any]] | None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Answer:
    """What the results of all kinds of problems have.

    Attributes:
        status: `converged`, `stopped`, `interrupted` or `failed`.
        message: a sentence that says why.
        objective: the value that was reached.
        control: (p,) the outer variables: the coefficients of all controls, one after the other.
        gradient: (p,) the gradient of the objective in the inner product of the control.
        certificate: bounds `state_residual` and `adjoint_residual` of the relative errors of state and adjoint, and an
            estimate `gradient_error` of the error of the gradient that they leave, in the norm of `gradient`.
        history: a mapping for each outer iteration, the rows of history.csv.
        stats: the content of summary.json, a mapping.
        written_yaml: the text of `problem_yaml` where it is known already; None where it is made when it is read.
        source: the problem as it was loaded, from which `save` makes a folder that can be loaded again.
    """

    status: Status
    message: str
    objective: float
    control: np.ndarray
    gradient: np.ndarray
    certificate: Certificate
    history: tuple[Row, ...]
    stats: Mapping[str, Any]
    written_yaml: str | None
    source: Source

    def __repr__(self) -> str:
        stats = self.stats
        return (
            f"{type(self).__name__}({stats['name']}: {self.status}, objective {self.objective:.9e}, "
            f"{stats['outer_iterations']} iterations, {len(self.control):,} control unknowns, {stats['seconds']:.2g} s)"
        )

    @cached_property
    def problem_yaml(self) -> str:
        """The text of the problem file with all defaults filled in."""
        return self.source.problem.yaml() if self.written_yaml is None else self.written_yaml

    def fields(self) -> tuple[Grid, FieldData] | None:
        """The fields for ParaView; None where the answer has none."""
        return None

    def frames(self) -> Iterator[tuple[Grid, FieldData]]:
        """The fields of an evolution at each of its times; none otherwise."""
        return iter(())

    def sensors(self) -> tuple[Grid, FieldData] | None:
        """The points of sensors.vtu; None without sensors."""
        return None

    def boundary(self) -> tuple[Grid, FieldData] | None:
        """The facets of boundary_control.vtu; None without a control on a part of the boundary."""
        return None

    def boundary_frames(self) -> Iterator[tuple[Grid, FieldData]]:
        """The facets of boundary_control at each time of an evolution, if a control on them varies."""
        return iter(())

    def control_curves(self) -> Iterator[TimeCurve]:
        """The curves of controls_over_time.csv; none where no control varies in time."""
        return iter(())

    def scenario_rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows of scenarios.csv; none without random inputs."""
        return iter(())

    def posterior_fields(self) -> tuple[Grid, FieldData] | None:
        """The fields of posterior.vtu; None without a posterior of a field."""
        return None

    def posterior_numbers(self) -> Mapping[str, Any]:
        """The content of posterior.json; none without a posterior."""
        return {}

    def posterior_lines(self) -> list[str]:
        """What the command line says about the posterior; none without one."""
        return []

    def arrays(self) -> Mapping[str, np.ndarray]:
        """The arrays of result.npz; none where the answer is a field."""
        return {}

    def state_arrays(self) -> Mapping[str, np.ndarray]:
        """The arrays of this answer that only a solve finds, beside control and gradient, by their attributes."""
        return {}

    def images(self) -> Figure | None:
        """The picture of images.png; None where the answer has no images."""
        return None

    @property
    def complete(self) -> bool:
        """The run has ended as it should, which is the exit code 0 of the command line."""
        return self.status == "converged"

    def where(self, series: bool, picture: bool = False) -> str:
        """Which files of the run folder to open.

        Args:
            series: it has the fields of iterates.
            picture: it has a figure.png.
        """
        return ""

    def plot(self) -> Figure | None:
        """The picture of figure.png; None where the answer has none."""
        return None

    def write(self, run: RunFolder, around: Callable[[], AbstractContextManager[None]] = lambda: nullcontext()) -> None:
        """Writes the files of the result into a run folder: all of `output.result_files.RESULTS`.

        Args:
            run: an open run folder.
            around: makes a context in which one file is written.
        """
        for write in RESULTS.values():
            with around():
                write(run, self)

    def fields_to_draw(self) -> Pictured | None:
        """The fields that `plot` draws; None where the answer has none."""
        return None

    def report(self, path: str | Path) -> Path:
        """Writes a page of HTML about this answer, which needs no other file; returns its path.

        Args:
            path: of the page, such as `report.html`.

        Raises:
            OutputError: the system does not take the file.
        """
        from ..output.atomic import write_atomically
        from ..reports.report_page import report_page

        write_atomically(path, report_page(self._material()))
        return Path(path)

    def _material(self) -> Material:
        from ..output.field_layout import Pictured
        from ..output.pictures import png
        from ..reports.material import Material

        images, inferred = self.images(), self.posterior_fields()
        return Material(
            problem_yaml=self.problem_yaml,
            summary=self.stats,
            history=self.history,
            shown=self.fields_to_draw(),
            scenarios=list(self.scenario_rows()),
            images=None if images is None else png(images),
            posterior=self.posterior_numbers(),
            posterior_fields=None if inferred is None else Pictured(*inferred),
        )

    def _repr_html_(self) -> str:
        """The answer in a notebook: how the run ended, the terms of the objective, a picture."""
        from ..reports.notebook_views import answer_view

        return answer_view(self, self.stats, self.plot() or self.images())

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Writes a run folder of this solution (without the fields of earlier iterations); returns its path.

        `Solution.load` returns the solution from it, to the last digit. The folder has no checkpoint, from which
        `resume` could go on: `solve(problem, output=...)` writes one.

        Args:
            folder: a folder that does not exist, an empty one, or a run folder of this problem.
            overwrite: the folder may hold a run of another problem.

        Raises:
            OutputError: the folder may not be written to, or is in use, or the system does not take a file.
        """
        from .saved_solution import problem_to_save, write_saved

        problem = problem_to_save(self.source.problem)
        # The files that the problem names are found from this folder too.
        text, mesh = problem.yaml(Path(folder)), problem.file.mesh_arrays()
        with RunFolder.create(folder, text, overwrite=overwrite, mesh=mesh) as run:
            for row in self.history:
                run.append_history(row)
            iterations, frame = int(self.stats["outer_iterations"]), self.fields()
            if frame is not None:
                run.fields.add(iterations, float(iterations), *frame)
            self.write(run)
            write_saved(run.path / SOLUTION, self, problem)
            for warning in run.warnings:
                run.log(f"warning: {warning}")
            run.log(f"{self.status}: {self.message}")
            run.write_summary(self.stats)
            return run.path
