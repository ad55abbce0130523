"""The answer of a run that has ended, from its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ..linalg.threads import at_most_threads
from ..output.names import LEVELS, PROBLEM
from ..output.ownership import level_folders
from ..output.run_folder import OutputError, read_ended
from ..problem import Problem
from ..problem_file.loading import read_problem
from .answer import Answer
from .mesh_record import MeshRecord
from .running import Run
from .solution import Solution


def recalled(folder: str | Path) -> Answer:
    """The answer of a run that has ended, or that was saved.

    Its problem is built again, and its last iterate is that of the checkpoint or of the saved solution.

    With random inputs the answer is judged again, in all scenarios.

    Raises:
        OutputError: there is no run that has ended, or its checkpoint or saved solution is missing, damaged or
            of another iterate.
        ProblemError: its problem can no longer be built, for example because a file that it names is gone.
    """
    path = Path(folder)
    # A folder without a run is refused before its problem is built.
    text, summary = read_ended(path)
    file = read_problem(path / PROBLEM)
    if getattr(getattr(file.spec, "mesh", None), "adapt", None) is not None:
        return _of_last_mesh(path, text, summary)
    problem: Any
    if hasattr(file.spec, "task"):
        # Problems with an equation are built without loading what tasks need.
        from ..task_problem import build_task

        problem = build_task(file)
    else:
        problem = Problem.of_file(file)
    with at_most_threads(problem.method.threads):
        answer = Run(problem, problem.method.oracle, None, lambda: False).recalled(path)
        return _with_estimate(problem, _with_levels(answer, summary))


def _with_estimate(problem: Any, answer: Answer) -> Answer:
    """The answer with the estimate of its discretisation error, where the run has made one."""
    if answer.stats.get("discretisation_error") is None or not isinstance(answer, Solution):
        return answer
    from ..discretisation import estimate_error

    return replace(answer, estimate=estimate_error(problem, answer))


def _with_levels(answer: Answer, summary: Mapping[str, Any]) -> Answer:
    """The answer that `save` has written, with the records of the meshes if it is that of an adaptive run."""
    levels = _levels_in(summary)
    return replace(answer, levels=levels) if isinstance(answer, Solution) and levels else answer


def _levels_in(summary: Mapping[str, Any]) -> tuple[MeshRecord, ...]:
    return tuple(MeshRecord(**each) for each in summary.get("levels", ()))


def _of_last_mesh(path: Path, text: str, summary: Mapping[str, Any]) -> Solution:
    """The answer of an adaptive run: that of its run on the last mesh, with the records of all meshes."""
    levels = _levels_in(summary)
    # A folder that `save` has written has no runs on meshes.
    folders = {int(each.name): each for each in level_folders(path)}
    if not levels or levels[-1].level not in folders:
        raise OutputError(f"{path}: expected the run folders of its meshes in {path / LEVELS}, found none of the last")
    answer = cast(Solution, recalled(folders[levels[-1].level]))
    own = {"status": summary["status"], "message": summary["message"], "stats": summary, "written_yaml": text}
    return replace(answer, levels=levels, **own)
