"""`nhgd-pde solve`: solve a problem, alone or as several processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..complaints import NOT_CONVERGED, bad_input, follows, warn
from ..run.mpi_processes import mpi_place, mpi_processes
from .arguments import built_problem, checked_file, file_argument, set_option

if TYPE_CHECKING:
    from ..api import Problem
    from ..output.start_line import StartLine
    from ..problem_file.loading import ProblemFile
    from ..run.answer import Answer, Row
    from ..run.launcher import Assignment, ProcessPlace


# Number of unknowns from which a factorisation takes seconds, in two and in three dimensions.
_LONG, _LONG_3D = 300_000, 30_000


@click.command()
@file_argument
@set_option
@click.option("--output", type=click.Path(path_type=Path), help="Run folder; outputs/NAME by default.")
@click.option("--method", help="The same as --set method=...; see `nhgd-pde list`.")
@click.option(
    "--roles", type=click.IntRange(1, 2), default=1, help="2 keeps the inverse Fisher information in a second process."
)
@click.option(
    "--ranks", type=click.IntRange(min=1), default=1, help="Processes that share the scenarios; see also torchrun."
)
@click.option("--initial", type=click.Path(path_type=Path), help="Start from the control of the run in this folder.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the run folder.")
@click.option("--overwrite", is_flag=True, help="Replace the results of another problem in the run folder.")
@click.option("--figure/--no-figure", default=True, help="Draw figure.png in the run folder at the end, or not.")
@click.option("-v", "--verbose", "mode", flag_value="verbose", help="Print a line for every outer iteration.")
@click.option("-q", "--quiet", "mode", flag_value="quiet", help="Print the last line only.")
def solve(
    file: Path,
    settings: tuple[str, ...],
    output: Path | None,
    method: str | None,
    roles: int,
    ranks: int,
    initial: Path | None,
    resume: bool,
    overwrite: bool,
    figure: bool,
    mode: str | None,
) -> None:
    """Solve the problem in FILE and write its run folder.

    Started as several processes (torchrun --nproc-per-node N -m nhgd_pde solve FILE), these share the scenarios of a
    problem with random inputs; of another one, two processes take a role each. Started by mpirun, they share the linear
    systems of a problem with `solver.kind: petsc`.
    """
    options: list[tuple[str, object]] = [("--set", each) for each in settings]
    options += [("--output", output), ("--method", method), ("--initial", initial)]
    given = [(name, str(value)) for name, value in options if value is not None]
    arguments = ["solve", str(file), *chain(*given), *(["--resume"] if resume else [])]
    with bad_input(), ExitStack() as stack:
        read = checked_file(file, settings, method)
        folder = output or Path("outputs") / read.spec.name
        shown = mode or "normal"
        line = stack.enter_context(_start_line(shown))
        run = partial(
            _run,
            folder=folder,
            mode=shown,
            resume=resume,
            overwrite=overwrite,
            initial=initial,
            figure=figure,
            line=line,
        )
        if mpi_place()[1] > 1 and (ranks > 1 or roles > 1):
            raise click.UsageError("--ranks and --roles start processes of their own, which cannot be those of mpirun")
        # Without other processes, what starts them is not loaded.
        if ranks == 1 and "WORLD_SIZE" not in os.environ:
            with mpi_processes(read):
                complete = run(built_problem(read), roles=roles)
        else:
            from ..run.launcher import taking_part

            with taking_part(read, arguments, ranks, roles) as part:
                if part.device:
                    read = checked_file(file, (*settings, f"devices.inner={part.device}"), method)
                complete = _play(part, read, folder, resume, run, initial)
    sys.exit(0 if complete else NOT_CONVERGED)


def _play(
    part: Assignment, file: ProblemFile, folder: Path, resume: bool, run: Callable[..., bool], initial: Path | None
) -> bool:
    """Take part in a run of several processes; tells whether it has ended as it should."""
    if part.curvature:
        from ..run.curvature_role import serve_curvature

        with _ending_with_the_others("curvature role", NOT_CONVERGED):
            serve_curvature(file, folder)
        return True
    problem = built_problem(file)
    if part.place is not None and part.place.rank > 0:
        from ..api import solve
        from ..run.child import LEADER_GONE

        with _ending_with_the_others(f"rank {part.place.rank}", LEADER_GONE):
            solve(problem, output=folder, resume=resume, place=part.place, initial=initial)
        return True
    return run(problem, roles=part.roles, place=part.place)


@contextmanager
def _start_line(mode: str) -> Iterator[StartLine]:
    """Shows the stages of the start on standard error: on a terminal, or if every detail is asked for."""
    from ..linalg.stage_log import stages_heard
    from ..output.start_line import StartLine

    line = StartLine(sys.stderr, not follows() and (mode == "verbose" or (mode != "quiet" and sys.stderr.isatty())))
    with stages_heard(line.hear):
        try:
            yield line
        finally:
            line.close()


def _starts_long(problem: Problem) -> bool:
    """Whether a factorisation will take seconds, during which nothing can be shown."""
    pde = getattr(problem, "pde", None)
    return pde is not None and pde.space.size >= (_LONG_3D if pde.space.domain.dim == 3 else _LONG)


@contextmanager
def _ending_with_the_others(name: str, code: int) -> Iterator[None]:
    """Ends this process, which is not the one that speaks for all, where another process of the run is lost."""
    from ..engine.roles.failures import RoleError

    try:
        yield
    except RoleError as lost:
        click.echo(f"{name}: {lost}", err=True)
        sys.exit(code)


def _run(
    problem: Problem,
    folder: Path,
    mode: str,
    resume: bool,
    overwrite: bool,
    initial: Path | None,
    figure: bool,
    line: StartLine,
    roles: int = 1,
    place: ProcessPlace | None = None,
) -> bool:
    """Solve a problem and show how it goes; tells whether it has ended as it should."""
    from typing import cast

    from ..api import solve
    from ..engine.roles.failures import RoleError
    from ..output.progress import Mode, Progress, numbers_line
    from ..run.accuracy_words import trust_sentence
    from ..run.signals import stop_requested
    from ..run.troubles import ResultsLostError

    with stop_requested() as interrupted, Progress(sys.stdout, cast(Mode, mode)) as progress:
        together = "; two roles" if roles == 2 else f"; {place.size} ranks" if place is not None else ""
        line.finish()
        progress.start(f"{problem}{together}", *problem.method.ends)
        if _starts_long(problem):
            line.expect_long()

        def shown(row: Row) -> None:
            line.close()
            progress.iteration(row)

        try:
            solution = solve(
                problem, shown, folder, interrupted, roles, resume, place, overwrite, warn, progress.note, initial
            )
        except (RoleError, ResultsLostError) as lost:
            progress.finish(f"failed: {lost}")
            return False
        drawn = figure and _drawn(solution, folder)
        where = f"{folder}: {solution.where(problem.file.spec.output.every > 0, drawn)}"
        warnings = "".join(f"warning: {text}\n" for text in solution.stats["warnings"])
        numbers = numbers_line(solution.stats.get("controls", {}))
        levels = "" if mode == "quiet" else _levels(solution)
        accuracy = f"{trust_sentence(solution.stats)}\n" if "errors" in solution.stats else ""
        posterior = "".join(f"\n{line}" for line in solution.posterior_lines())
        progress.finish(
            f"{levels}{warnings}{solution.status}: {solution.message}\n{accuracy}{numbers}{where}{posterior}"
        )
    return solution.complete


def _levels(solution: Answer) -> str:
    """The table of the meshes of an adaptive run; empty for another one."""
    if "levels" not in solution.stats:
        return ""
    from ..output.level_table import level_lines

    return level_lines(solution.stats["levels"])


def _drawn(solution: Answer, folder: Path) -> bool:
    """Draws the picture of a run that has ended and been written; tells whether there is one.

    Whatever goes wrong is a warning: the results are on disk.
    """
    from ..output.sealed import first_line

    try:
        picture = solution.plot()
        if picture is None:
            return False
        from ..output.figure import write_figure

        write_figure(folder, picture)
        return True
    except (Exception, KeyboardInterrupt) as error:
        warn(f"the picture was not drawn ({first_line(error)}); `nhgd-pde plot {folder}` draws it")
        return False
