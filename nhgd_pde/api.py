"""Load, solve and verify: the functions of the Python API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .building.blueprint import blueprint_of
from .linalg.threads import at_most_threads
from .output.lock import FolderLock
from .output.names import PROBLEM
from .output.ownership import claimed_for_new, claimed_for_resume
from .output.storage import OutputError
from .problem import Problem
from .problem_file.errors import ProblemError
from .problem_file.loading import ProblemFile, read_problem
from .run.answer import Answer, Row
from .run.running import Run
from .run.sharing import check_one_process, check_roles, sharing
from .run.solution import Solution

if TYPE_CHECKING:
    import numpy as np

    from .run.initial_control import Start
    from .run.launcher import ProcessPlace
    from .run.placing import Placement
    from .verification import Verification

__all__ = ["Problem", "load", "place_sensors", "solve", "verify"]


def load(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Problem:
    """Read, check and build a problem.

    A file with a `task` in place of an equation gives a `TaskProblem`, which `solve` takes too.

    Args:
        source: the path of a problem file or of a run folder, or the content of a problem file as a mapping.
        overrides: values that replace those of the file, by dotted path: `{"objective.1.weight": 1e-4}` sets the
            weight of the second term. They are the `--set` of the command line.

    Raises:
        ProblemError: everything that is wrong with it, a line each; the problem would not fit into memory.
    """
    if isinstance(source, str | Path) and (Path(source) / PROBLEM).is_file():
        source = Path(source) / PROBLEM
    try:
        file = read_problem(source, overrides)
    except ProblemError as error:
        from .building.part_names import with_names

        raise with_names(error) from None
    return build_problem(file)


def build_problem(file: ProblemFile) -> Problem:
    """Build a problem that has been read.

    Raises:
        ProblemError: everything that is wrong with it, a line each; the problem would not fit into memory.
    """
    if hasattr(file.spec, "task"):
        # Problems with an equation are built without loading what tasks need.
        from .task_problem import build_task

        return cast(Problem, build_task(file))
    return Problem.of_file(file)


def solve(
    problem: Problem,
    callback: Callable[[Row], object] | None = None,
    output: str | Path | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    roles: int = 1,
    resume: bool = False,
    place: ProcessPlace | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
    note: Callable[[str], None] = lambda sentence: None,
    initial: np.ndarray | Answer | str | Path | None = None,
    progress: bool = False,
) -> Solution:
    """Solve a problem.

    Args:
        problem: from `load`, or a `Problem`.
        callback: called with the row of history.csv of every outer iteration, a mapping; the run ends, with the status
            `interrupted`, once the callback returns True.
        output: a run folder to write while solving; none by default.
        interrupted: asked before every evaluation; true stops the run with what it has.
        roles: 2 puts the inverse Fisher information into a process of its own, on `devices.curvature`.
        resume: go on from the checkpoint in `output`.
        place: of this process among several that share the scenarios of the problem and all call this; see
            `run.launcher.launched_place`. Only rank 0 writes the folder and has the states of all scenarios.
        overwrite: `output` may be the run folder of another problem, whose results are then replaced.
        tell: called with a sentence when a file of the folder cannot be written and the run goes on without it; all
            such sentences are in `stats["warnings"]` as well.
        note: called with a sentence after every generation of a population search, and at its end.
        initial: the control to start from in place of that of the file: an array (p,), a solution, or the folder of a
            run that has ended. `outer.rtol` stays relative to the gradient at the control of the file, which is
            evaluated once, so that the run ends where a run from there does.
        progress: show the table of the command line on standard output, in a notebook too.

    Returns:
        The solution; of a task a `TaskSolution`. Numerical failure is its status, not an exception. A
        KeyboardInterrupt ends the run as `interrupted` once there is a first iterate; a curvature role that dies ends
        it as `failed`.

    Raises:
        OutputError: `output` is not a folder that may be written to, has no checkpoint of this problem, or is in use by
            another run.
        ResultsLostError: an OutputError at the end of a run some of whose results could not be written; its `solution`
            is what would have been returned.
        ProblemError: the method has no curvature role, or its device is not that of the one role there is.
        RoleFailedError, RoleLostError, RankLostError, MemberLostError: another process could not be set up, or died
            before the first iterate.
    """
    if progress:
        from .run.watching import watched

        unseen = partial(
            solve, problem, output=output, interrupted=interrupted, roles=roles, resume=resume, place=place,
            overwrite=overwrite, tell=tell, initial=initial,
        )  # fmt: skip
        return watched(unseen, problem, callback, note)
    if resume and output is None:
        raise OutputError("resume: expected the folder of the run to go on with, found none")
    folder = Path(output) if output is not None else None
    check_roles(problem, roles)

    watching = callback, interrupted, tell, note

    def run(own: Problem, at: Path | None, goes_on: bool, replaces: bool, start: Any, error: float = 0.0) -> Solution:
        return _solve(own, watching, at, roles, goes_on, place, replaces, start, error)

    ranks = 1 if place is None else place.size
    how: Any = _adaptively(problem, run, note, roles, ranks) if _adapts(problem) else partial(run, problem)
    return cast(Solution, how(folder, resume, overwrite, initial))


def _adapts(problem: Problem) -> bool:
    """Whether the mesh is refined where the error is; tasks have no mesh."""
    return isinstance(problem, Problem) and problem.file.spec.mesh.adapt is not None


def _adaptively(
    problem: Problem, run: Callable[..., Solution], note: Callable[[str], None], roles: int, ranks: int
) -> Callable[..., Solution]:
    """Solves a problem on adaptive meshes, on each of them by `run`; several processes are refused."""
    check_one_process(problem.file, roles, ranks)
    from .adaptive.adaptive_loop import AdaptiveLoop
    from .discretisation import estimate_error

    return AdaptiveLoop(problem, run, estimate_error, note).solve


def _solve(
    problem: Problem,
    watching: tuple[Any, ...],
    folder: Path | None,
    roles: int,
    resume: bool,
    place: ProcessPlace | None,
    overwrite: bool,
    initial: np.ndarray | Answer | str | Path | Start | None,
    expected: float,
) -> Solution:
    """Solves a problem on its own mesh; see `solve`.

    Args:
        watching: callback, interrupted, tell and note.
        expected: the error that the mesh leaves in the objective, if it is known roughly.
    """
    callback, interrupted, tell, note = watching
    writes = place is None or place.rank == 0
    with (
        _claimed(folder if writes else None, problem, resume, overwrite) as lock,
        sharing(problem, roles, place, folder) as shared,
        at_most_threads(shared.threads),
    ):
        run = Run(problem, shared.oracle, callback, interrupted, shared.team, tell, note, initial, expected)
        return cast(Solution, run.solve(folder, resume, lock))


def _claimed(
    folder: Path | None, problem: Problem, resume: bool, overwrite: bool
) -> AbstractContextManager[FolderLock | None]:
    """The lock of a run folder for the length of a `with` block; None without a folder to write."""
    if folder is None:
        return nullcontext()
    return claimed_for_resume(folder) if resume else claimed_for_new(folder, problem.file.dump(), overwrite)


def verify(problem: Problem, at: Solution | str | Path | None = None) -> Verification:
    """Test every derivative of a problem: against differences, transposes, symmetry, Fisher information, hypergradient.

    Over scenarios all tests are made in the nominal one, and those of the functions and of the assembled derivatives in
    a few extreme ones too.

    Args:
        problem: from `load`.
        at: a solution of the problem, or the folder of a run that has ended. The tests are then made at its control and
            state, where derivatives that are wrong for some values only can be found. None: the tests are made at a
            random control, at its state and near it.

    Raises:
        OutputError: the folder is not that of a run of this problem that has ended, or is damaged.
    """
    if not isinstance(problem, Problem):
        raise problem.file.error("task", "verify tests the derivatives of problems with an equation, found a task")
    from .run.recovery import end_of
    from .scenario_problem import ScenarioProblem
    from .verification import verify_problem

    last = problem.stages[-1]
    scenarios = last.extremes() if isinstance(last, ScenarioProblem) else ()
    with at_most_threads(problem.method.threads):
        pde, whole = problem.pde, True
        if problem.file.spec.passes_steps:
            # The tests are made on the equation of all steps at once; the run has kept the last state alone.
            pde, whole = blueprint_of(problem.file).nominal, False
        if at is None:
            return verify_problem(pde, problem.file.spec.seed, scenarios=scenarios)
        end = end_of(problem, at)
        state = end.u if whole else None
        return verify_problem(pde, problem.file.spec.seed, (state, end.v), end.place, scenarios)


def place_sensors(
    problem: Problem,
    candidates: np.ndarray | None = None,
    count: int | None = None,
    criterion: Literal["D", "A"] | None = None,
    at: np.ndarray | Answer | None = None,
    **options: Any,
) -> Placement:
    """The best of many candidate sensors for the posterior of a problem with a section `inference`.

    Candidates and options are those of the section `placement` of the problem file, where they are not given here.

    Args:
        problem: from `load`.
        candidates: (m, dim) places where a sensor could be.
        count: how many of them are chosen.
        criterion: `D` for the largest information gain, `A` for the smallest integrated variance.
        at: the control (p,) or the solution at which the equation is linearised. By default the problem is solved
            first, unless the measured values depend linearly on the control.
        options: other keys of the section: `penalty` in place of `count`, `noise`, `existing`, `component`, `times`.

    Raises:
        ProblemError: a key is wrong or missing, candidates are outside the mesh or see nothing of the control.
        ArithmeticError: the problem has to be solved first, and its run does not converge.
    """
    if not isinstance(problem, Problem):
        raise problem.file.error("task", "sensors are chosen for problems with an equation, found a task")
    from .run.placing import placed, with_placement

    given = {"count": count, "criterion": criterion, **options}
    file = with_placement(problem.file, {key: value for key, value in given.items() if value is not None})
    with at_most_threads(problem.method.threads):
        return placed(problem.pde, file, _linearised_at(problem, at), candidates)


def _linearised_at(problem: Problem, at: np.ndarray | Answer | None) -> np.ndarray:
    """The control (p,) at which the measured values are linearised.

    Raises:
        ArithmeticError: the run that finds the most likely control does not converge.
    """
    if at is None and problem.pde.quadratic:
        return problem.pde.start()[1].cpu().numpy()
    answer = solve(problem) if at is None else at
    if not isinstance(answer, Answer):
        return answer
    if answer.status != "converged":
        raise ArithmeticError(
            f"expected a run that has converged, found one that is {answer.status}: its control is not the most likely "
            "one, at which the measured values are linearised; take more outer.iterations"
        )
    return answer.control
