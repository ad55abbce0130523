"""The loop of an adaptive run: solve, estimate, mark, refine, and go on from the answer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from ..building.blueprint import Blueprint
from ..building.domains import onto_boundary
from ..discretisation import NoEstimateError
from ..discretisation.error_estimate import Posed
from ..engine.loop import Status
from ..fem.adaptive_refinement import NotRefinableError, refined, smallest_angle
from ..fem.mesh import Domain
from ..output.names import CHECKPOINT, EARLIER_CHECKPOINT
from ..problem import Problem
from ..problem_file.errors import ProblemError
from ..problem_file.loading import ProblemFile
from ..problem_file.mesh_spec import AdaptSpec
from ..run.mesh_record import MeshRecord
from ..run.recall import recalled
from ..run.solution import Solution
from .level_files import LevelFiles, opened
from .level_problems import in_folder, level_folder, on_mesh, start_from, write_level
from .marking import MARKINGS

# An estimate is a sum of contributions of both signs. It is believed where their sizes add up to at most this times the
# tolerance; on coarse meshes a sum may be small by chance.
_MOST_CANCELLED = 10.0
# About the factor by which a mesh lowers the error, for the first goal of the run on it.
_FALL = 0.5
# The run ends where this many meshes in a row have not lowered the estimated error: it is made of rounding, or of what
# a finer mesh does not change.
_MOST_IN_VAIN = 3
# Largest number of meshes: their folders have numbers of two digits.
_MOST_MESHES = 99


class FoundError(Protocol):
    """What an estimate of the error finds.

    Attributes:
        value: estimate of the objective of the continuous problem minus that of the mesh.
        indicator: (cells,) non-negative contributions of the cells.
    """

    @property
    def value(self) -> float: ...

    @property
    def indicator(self) -> np.ndarray: ...


ErrorFinder = Callable[[Posed, Solution], FoundError]


# Solves a problem on one mesh: with its run folder, whether to go on with the run in it, whether that may be a run of
# another problem, where to start, and the error that the mesh is expected to leave in the objective.
RunOnMesh = Callable[[Problem, Path | None, bool, bool, Any, float], Solution]


@dataclass(frozen=True)
class AdaptiveLoop:
    """How an adaptive run is made.

    Attributes:
        problem: the problem on its first mesh.
        run: solves the problem on one mesh.
        estimate: the error of a solution.
        note: called with sentences on the meshes.
    """

    problem: Problem
    run: RunOnMesh
    estimate: ErrorFinder
    note: Callable[[str], None]

    def solve(self, folder: Path | None, resume: bool, overwrite: bool, initial: Any) -> Solution:
        """Solves the problem on finer and finer meshes.

        Args:
            folder: the run folder; None for a run without one.
            resume: go on with the earlier run in the folder.
            overwrite: the folder may hold the run of another problem.
            initial: where the run on the first mesh starts, see `api.solve`.

        Returns:
            The solution on the last mesh, with the records of all meshes.
        """
        with opened(self.problem, folder, resume, overwrite) as files:
            solution = self._solve(files, initial)
            if files is not None:
                files.publish(level_folder(files.path, len(solution.levels)), solution)
        return solution

    def _solve(self, files: LevelFiles | None, initial: Any) -> Solution:
        levels = [] if files is None else files.before()
        # Where an earlier run has begun on a mesh, that mesh is in its folder.
        domain: Domain | None = None if files is not None and files.begun else self.problem.pde.space.domain
        solution: Solution | None = None
        while True:
            begin = time.perf_counter()
            try:
                problem = Problem.of_file(self._file(files, len(levels) + 1, domain))
            except ProblemError as error:
                if solution is None:
                    raise
                return self._ended(solution, levels, files, _End("stopped", f"the next mesh cannot be used: {error}"))
            domain = problem.pde.space.domain
            self._tell(files, f"mesh {len(levels) + 1}: {domain.mesh.nelements:,} cells; {problem}")
            start = self._start(files, levels, solution, problem, initial)
            solution = self._run(files, levels, problem, start)
            found = self._estimated(problem, solution)
            seconds = time.perf_counter() - begin
            levels.append(_record(levels, problem, solution, found, seconds, initial is None))
            if files is not None:
                files.write_table(levels)
            self._tell(files, _sentence(levels[-1], self._adapt))
            finer = found if isinstance(found, _End) else self._finer(domain, levels, found.indicator)
            if isinstance(finer, _End):
                return self._ended(solution, levels, files, finer)
            domain = finer

    @property
    def _adapt(self) -> AdaptSpec:
        adapt = self.problem.file.spec.mesh.adapt
        assert adapt is not None
        return adapt

    def _tell(self, files: LevelFiles | None, sentence: str) -> None:
        self.note(sentence)
        if files is not None:
            files.log(sentence)

    def _file(self, files: LevelFiles | None, level: int, domain: Domain | None) -> ProblemFile:
        """The problem on a mesh; where none is given, on that in the folder of the level."""
        if files is None:
            assert domain is not None
            return on_mesh(self.problem.file, domain)
        folder = level_folder(files.path, level)
        return (
            in_folder(self.problem.file, folder) if domain is None else write_level(self.problem.file, domain, folder)
        )

    def _start(
        self,
        files: LevelFiles | None,
        levels: Sequence[MeshRecord],
        before: Solution | None,
        problem: Problem,
        initial: Any,
    ) -> Any:
        """Where the run on the next mesh starts: at the solution on the mesh before."""
        if not levels:
            return initial
        if before is None:
            assert files is not None
            before = cast(Solution, recalled(level_folder(files.path, len(levels))))
        return start_from(before, problem.pde, levels[0].reference or 0.0)

    def _run(self, files: LevelFiles | None, levels: Sequence[MeshRecord], problem: Problem, start: Any) -> Solution:
        """Solves the problem on the next mesh; an earlier run on it goes on."""
        folder = None if files is None else level_folder(files.path, len(levels) + 1)
        before = levels[-1].estimated_error if levels else None
        expected = 0.0 if before is None else _FALL * abs(before)
        goes_on = folder is not None and any((folder / name).exists() for name in (CHECKPOINT, EARLIER_CHECKPOINT))
        return self.run(problem, folder, goes_on, False, None if goes_on else start, expected)

    def _estimated(self, problem: Problem, solution: Solution) -> FoundError | _End:
        """The estimate of the error of a solution, or why there is none."""
        if solution.status != "converged":
            return _End(solution.status, "the mesh is not refined, as the run on it has not converged")
        mesh = self.problem.file.spec.mesh
        file = problem.file
        if onto_boundary(mesh) is None and solution.estimate is not None:
            return solution.estimate
        if onto_boundary(mesh) is not None:
            # The boundary of the domain is a circle, which the mesh of the level alone does not tell.
            file = replace(file, spec=file.spec.model_copy(update={"mesh": mesh}))
        try:
            return self.estimate(_Posed(file, problem.scenarios), solution)
        except NoEstimateError as error:
            return _End("stopped", f"the error cannot be estimated: {error}")

    def _finer(self, domain: Domain, levels: Sequence[MeshRecord], indicator: np.ndarray) -> Domain | _End:
        """The next mesh, or why there is none."""
        adapt = self._adapt
        errors = [math.inf if each.relative_error is None else each.relative_error for each in levels]
        sizes = [math.inf if each.contributions is None else each.contributions for each in levels]
        enough = adapt.tolerance * abs(levels[-1].objective)
        if errors[-1] <= adapt.tolerance and sizes[-1] <= _MOST_CANCELLED * enough:
            return _End("converged", "")
        if not (math.isfinite(errors[-1]) and np.isfinite(indicator).all()):
            return _End("stopped", "the error could not be estimated: the estimate is not finite")
        if len(sizes) > _MOST_IN_VAIN and min(sizes[-_MOST_IN_VAIN:]) >= sizes[-_MOST_IN_VAIN - 1]:
            sentence = f"{_MOST_IN_VAIN} meshes have not lowered the sum of the contributions of their cells"
            return _End("stopped", f"refinement brings nothing: {sentence}")
        if len(levels) == _MOST_MESHES:
            return _End("stopped", f"there is no mesh after the one with the number {_MOST_MESHES}")
        marked = MARKINGS[adapt.marking](indicator, adapt.fraction)
        if not len(marked):
            return _End("stopped", "refinement brings nothing: no cell has a part in the error")
        try:
            finer = refined(domain, marked, onto_boundary(self.problem.file.spec.mesh))
        except NotRefinableError as error:
            return _End("stopped", f"the mesh cannot be refined: {error}")
        if finer.mesh.nelements > adapt.cells:
            count = f"{finer.mesh.nelements:,} cells"
            return _End("stopped", f"the next mesh would have {count}, more than mesh.adapt.cells = {adapt.cells:,}")
        return finer

    def _ended(self, solution: Solution, levels: list[MeshRecord], files: LevelFiles | None, end: _End) -> Solution:
        """The solution of the run: that on the last mesh, with what is known of all meshes."""
        parts = [solution.message, _sentence(levels[-1], self._adapt), end.sentence]
        message = "; ".join(part for part in parts if part)
        records = [asdict(each) for each in levels]
        totals = {name: sum(each[name] for each in records) for name in ("iterations", "solves", "seconds")}
        stats = {**solution.stats, "status": end.status, "message": message, "levels": records, "all_levels": totals}
        text = self.problem.yaml(None if files is None else files.path)
        return replace(
            solution, status=end.status, message=message, stats=stats, written_yaml=text, levels=tuple(levels)
        )


@dataclass(frozen=True, eq=False)
class _Posed:
    """What an estimate has to know of a problem."""

    file: ProblemFile
    scenarios: Blueprint | None


@dataclass(frozen=True)
class _End:
    """Why there is no further mesh."""

    status: Status
    sentence: str


def _record(
    levels: Sequence[MeshRecord],
    problem: Problem,
    solution: Solution,
    found: FoundError | _End,
    seconds: float,
    from_file: bool,
) -> MeshRecord:
    """The record of a mesh after those of the meshes before; `from_file`: the first run started where the file says."""
    value = None if isinstance(found, _End) else float(found.value)
    size = abs(solution.objective)
    relative = None if value is None else abs(value) / size if size else 0.0 if value == 0.0 else math.inf
    first = levels[0].reference if levels else solution.stats["gradient_norm_initial"] if from_file else None
    domain = problem.pde.space.domain
    return MeshRecord(
        level=len(levels) + 1,
        cells=int(domain.mesh.nelements),
        unknowns=problem.inner_shape[1],
        controls=problem.outer_size,
        smallest_angle=smallest_angle(domain),
        objective=solution.objective,
        estimated_error=value,
        contributions=None if isinstance(found, _End) else float(found.indicator.sum()),
        relative_error=relative,
        iterations=int(solution.stats["outer_iterations"]),
        solves=int(solution.stats["solves"]["solves"]),
        seconds=seconds,
        status=solution.status,
        reference=first,
    )


def _sentence(level: MeshRecord, adapt: AdaptSpec) -> str:
    """What is known of the error on a mesh."""
    value = level.estimated_error
    if value is None or level.contributions is None:
        return f"mesh {level.level} of {level.cells:,} cells"
    cancelled = level.contributions > _MOST_CANCELLED * max(adapt.tolerance * abs(level.objective), abs(value))
    return (
        f"mesh {level.level} of {level.cells:,} cells: estimated error of the objective {value:.1e}, "
        f"{level.relative_error:.1e} of it (goal {adapt.tolerance:.0e})"
        f"{', whose contributions cancel by chance' if cancelled else ''}"
    )
