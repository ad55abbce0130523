"""The answer of a run that has ended, from its run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..linalg.threads import at_most_threads
from ..output.names import PROBLEM
from ..output.run_folder import read_ended
from ..problem import Problem
from ..problem_file.loading import read_problem
from .answer import Answer
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
    read_ended(path)
    file = read_problem(path / PROBLEM)
    problem: Any
    if hasattr(file.spec, "task"):
        # Problems with an equation are built without loading what tasks need.
        from ..task_problem import build_task

        problem = build_task(file)
    else:
        problem = Problem.of_file(file)
    with at_most_threads(problem.method.threads):
        return _with_estimate(problem, Run(problem, problem.method.oracle, None, lambda: False).recalled(path))


def _with_estimate(problem: Any, answer: Answer) -> Answer:
    """The answer with the estimate of its discretisation error, where the run has made one."""
    if answer.stats.get("discretisation_error") is None or not isinstance(answer, Solution):
        return answer
    from ..discretisation import estimate_error

    return replace(answer, estimate=estimate_error(problem, answer))
