"""One run of a study: from the start, from the control of another run, or from its checkpoint, to its record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..output.names import CHECKPOINT, EARLIER_CHECKPOINT, POPULATION
from ..output.storage import OutputError
from ..problem_file.loading import ProblemFile, read_problem

if TYPE_CHECKING:
    import numpy as np

    from ..problem import Problem
    from ..run.answer import Answer

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class RunTask:
    """What a process needs to make a run.

    Attributes:
        folder: the run folder.
        initial: the folder of the run from whose control it starts; None: it starts from the control of its file.
    """

    file: ProblemFile
    folder: Path
    initial: Path | None = None

    def message(self) -> dict[str, Any]:
        """The task for another process, as plain values."""
        path = None if self.file.path is None else str(self.file.path.resolve())
        return {
            "problem": self.file.spec.model_dump(mode="json"),
            "path": path,
            "folder": str(self.folder.resolve()),
            "initial": None if self.initial is None else str(self.initial.resolve()),
        }

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> RunTask:
        """The task of a message."""
        file = read_problem(message["problem"], place=None if message["path"] is None else Path(message["path"]))
        initial = None if message["initial"] is None else Path(message["initial"])
        return cls(file, Path(message["folder"]), initial)


def performed(task: RunTask, interrupted: Callable[[], bool]) -> Record:
    """The record of a run that has been made; whatever it fails for is a sentence in it."""
    try:
        return _made(task, interrupted)
    except KeyboardInterrupt:
        return {"status": "interrupted", "message": "the run was asked to end before its first iterate"}
    except Exception as error:
        said = str(error).strip().replace("\n", "; ") or "no reason was given"
        known = isinstance(error, ValueError | OSError)
        return {"status": "failed", "message": said if known else f"{type(error).__name__}: {said}"}


def performed_message(message: Mapping[str, Any], interrupted: Callable[[], bool]) -> Record:
    """The record of a run whose task has come as a message."""
    try:
        task = RunTask.of(message)
    except Exception as error:
        return {"status": "failed", "message": str(error)}
    return performed(task, interrupted)


def _made(task: RunTask, interrupted: Callable[[], bool]) -> Record:
    from ..api import build_problem, solve

    if interrupted():
        return {"status": "interrupted", "message": "the study was asked to end before the run had begun"}
    problem = build_problem(task.file)
    initial, start = _initial(problem, task.initial)
    names = (CHECKPOINT, EARLIER_CHECKPOINT, POPULATION)
    solution: Answer | None = None
    if any((task.folder / name).is_file() for name in names):
        try:
            solution = solve(problem, None, task.folder, interrupted, resume=True, initial=initial)
        except OutputError as unusable:
            # Such as a checkpoint of a problem that has changed since: the run begins anew.
            start = f"{start}; {unusable}" if start else str(unusable)
    if solution is None:
        solution = solve(problem, None, task.folder, interrupted, overwrite=True, initial=initial)
    return _record(problem, solution, start)


def _initial(problem: Problem, folder: Path | None) -> tuple[np.ndarray | None, str]:
    """The control (p,) at the end of another run, and why there is none."""
    if folder is None:
        return None, ""
    from ..run.reached import read_reached

    if problem.population is not None:
        return None, "cold start: a population searches for its start"
    try:
        reached = read_reached(folder)
    except OutputError as error:
        return None, f"cold start: {error}"
    if reached is None:
        return None, f"cold start: {folder} has no checkpoint"
    if len(reached.v) != problem.outer_size:
        return None, f"cold start: the control before has {len(reached.v):,} values, this one {problem.outer_size:,}"
    if not reached.has_mesh_of(problem):
        return None, "cold start: the control before is that of another mesh"
    return reached.v.cpu().numpy(), ""


def _record(problem: Problem, solution: Answer, start: str) -> Record:
    stats = solution.stats
    return {
        "status": solution.status,
        "message": solution.message,
        "complete": solution.complete,
        "objective": float(solution.objective),
        "terms": dict(stats.get("terms", {})),
        "gradient_norm": stats["gradient_norm"],
        "control_norm": _norm(problem, solution),
        "iterations": stats["outer_iterations"],
        "solves": stats["solves"]["solves"],
        "factorisations": stats["solves"]["factorisations"],
        "state_dofs": stats["state_dofs"],
        "control_dofs": stats["control_dofs"],
        "size": _cell_size(problem),
        "seconds": stats["seconds"],
        "start": start,
    }


def _norm(problem: Problem, solution: Answer) -> float | None:
    """The norm of the control in its own inner product; None for a task."""
    import torch

    if not hasattr(problem, "pde"):
        return None
    metric = problem.pde.outer_metric
    return float(metric.norm(torch.from_numpy(solution.control).to(problem.device)[None]))


def _cell_size(problem: Problem) -> float | None:
    """The length of an edge of a cube with the mean volume of a cell; None for a task."""
    if not hasattr(problem, "pde"):
        return None
    domain = problem.pde.space.domain
    extent = domain.mesh.p.max(axis=1) - domain.mesh.p.min(axis=1)
    return math.prod(float(each) for each in extent) ** (1.0 / domain.dim) / float(domain.mesh.nelements) ** (
        1.0 / domain.dim
    )
