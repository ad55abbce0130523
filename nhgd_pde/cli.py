"""The command line: commands, nothing else."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .complaints import NOT_CONVERGED, Program, bad_input, follows, tell, warn
from .run.environment import wait_without_work
from .run.mpi_processes import mpi_place, mpi_processes

if TYPE_CHECKING:
    from .api import Problem
    from .bench.results import ProblemResults
    from .bench.suite import Plan
    from .bench.trials import Task
    from .problem_file.loading import ProblemFile
    from .run.launcher import Assignment, ProcessPlace


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nhgd-pde")
def main() -> None:
    """PDE-constrained optimisation and inverse design by natural hypergradient descent.

    A problem is a YAML file; its result is a folder that ParaView opens.
    """
    wait_without_work()


def _overrides(settings: tuple[str, ...]) -> dict[str, object]:
    from .problem_file.loading import parse_override

    return dict(parse_override(text) for text in settings)


def _read(file: Path, settings: tuple[str, ...], method: str | None = None) -> ProblemFile:
    from .problem_file.loading import read_problem
    from .problem_file.room import check_room

    problem = read_problem(file, _overrides(settings) | ({} if method is None else {"method": method}))
    check_room(problem)
    return problem


def _built(file: ProblemFile) -> Problem:
    # The file has been read before torch is loaded, which takes longer than it takes to refuse a file.
    from .api import build_problem
    from .problem_file.announcing import announced

    with announced(lambda text: None if follows() else tell(text)):
        return build_problem(file)


_file = click.argument("file", type=click.Path(path_type=Path))
_set = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a value by its dotted path."
)


@main.command()
@_file
@_set
@click.option("--output", type=click.Path(path_type=Path), help="Run folder; outputs/NAME by default.")
@click.option("--method", help="The same as --set method=...; see `nhgd-pde list`.")
@click.option("--roles", type=click.IntRange(1, 2), default=1, help="2 gives the inverse a process of its own.")
@click.option(
    "--ranks", type=click.IntRange(min=1), default=1, help="Processes that share the scenarios; see also torchrun."
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the run folder.")
@click.option("--overwrite", is_flag=True, help="Replace the results of another problem in the run folder.")
@click.option("-v", "--verbose", "mode", flag_value="verbose", help="A line for every outer iteration.")
@click.option("-q", "--quiet", "mode", flag_value="quiet", help="The last line only.")
def solve(
    file: Path,
    settings: tuple[str, ...],
    output: Path | None,
    method: str | None,
    roles: int,
    ranks: int,
    resume: bool,
    overwrite: bool,
    mode: str | None,
) -> None:
    """Solve the problem in FILE and write its run folder.

    Started as several processes (torchrun --nproc-per-node N -m nhgd_pde solve FILE), these share the scenarios of a
    problem with random inputs; of another one, two processes take a role each. Started by mpirun, they share the linear
    systems of a problem with `solver.kind: petsc`.
    """
    options = [("--set", each) for each in settings] + [("--output", output), ("--method", method)]
    given = [(name, str(value)) for name, value in options if value is not None]
    arguments = ["solve", str(file), *chain(*given), *(["--resume"] if resume else [])]
    with bad_input():
        read = _read(file, settings, method)
        folder = output or Path("outputs") / read.spec.name
        run = partial(_run, folder=folder, mode=mode or "normal", resume=resume, overwrite=overwrite)
        if mpi_place()[1] > 1 and (ranks > 1 or roles > 1):
            raise click.UsageError("--ranks and --roles start processes of their own, which cannot be those of mpirun")
        # Without other processes, what starts them is not loaded.
        if ranks == 1 and "WORLD_SIZE" not in os.environ:
            with mpi_processes(read):
                complete = run(_built(read), roles=roles)
        else:
            from .run.launcher import taking_part

            with taking_part(read, arguments, ranks, roles) as part:
                if part.device:
                    read = _read(file, (*settings, f"devices.inner={part.device}"), method)
                complete = _play(part, read, folder, resume, run)
    sys.exit(0 if complete else NOT_CONVERGED)


def _play(part: Assignment, file: ProblemFile, folder: Path, resume: bool, run: Callable[..., bool]) -> bool:
    """Take part in a run of several processes; tells whether it has ended as it should."""
    if part.curvature:
        from .run.curvature_role import serve_curvature

        with _ending_with_the_others("curvature role", NOT_CONVERGED):
            serve_curvature(file, folder)
        return True
    problem = _built(file)
    if part.place is not None and part.place.rank > 0:
        from .api import solve
        from .run.child import LEADER_GONE

        with _ending_with_the_others(f"rank {part.place.rank}", LEADER_GONE):
            solve(problem, output=folder, resume=resume, place=part.place)
        return True
    return run(problem, roles=part.roles, place=part.place)


@contextmanager
def _ending_with_the_others(name: str, code: int) -> Iterator[None]:
    """Ends this process, which is not the one that speaks for all, where another process of the run is lost."""
    from .engine.roles.failures import RoleError

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
    roles: int = 1,
    place: ProcessPlace | None = None,
) -> bool:
    """Solve a problem and show how it goes; tells whether it has ended as it should."""
    from typing import cast

    from .api import solve
    from .engine.roles.failures import RoleError
    from .output.progress import Mode, Progress, numbers_line
    from .run.signals import stop_requested
    from .run.troubles import ResultsLostError

    with stop_requested() as interrupted, Progress(sys.stdout, cast(Mode, mode)) as progress:
        together = "; two roles" if roles == 2 else f"; {place.size} ranks" if place is not None else ""
        progress.start(f"{problem}{together}")
        try:
            solution = solve(
                problem, progress.iteration, folder, interrupted, roles, resume, place, overwrite, warn, progress.note
            )
        except (RoleError, ResultsLostError) as lost:
            progress.finish(f"failed: {lost}")
            return False
        where = f"{folder}: {solution.where(series=problem.file.spec.output.every > 0)}"
        warnings = "".join(f"warning: {text}\n" for text in solution.stats["warnings"])
        numbers = numbers_line(solution.stats.get("controls", {}))
        progress.finish(f"{warnings}{solution.status}: {solution.message}\n{numbers}{where}")
    return solution.complete


@main.command()
@_file
@_set
@click.option("--no-code", is_flag=True, help="Run no Python file that FILE names; all else is checked.")
def check(file: Path, settings: tuple[str, ...], no_code: bool) -> None:
    """Check FILE without solving it: mistakes, sizes, and what a solve will cost."""
    with bad_input():
        checked = _read(file, settings)
        # The file of a task names no code.
        if no_code and not hasattr(checked.spec, "task"):
            from .building.stand_ins import report_without_code

            click.echo(report_without_code(checked))
            return
        with mpi_processes(checked):
            problem = _built(checked)
            click.echo(str(problem))
            click.echo(problem.report())


@main.command()
@_file
@_set
@click.option("--at", type=click.Path(path_type=Path), help="The folder of a run, at whose end the tests are made.")
def verify(file: Path, settings: tuple[str, ...], at: Path | None) -> None:
    """Test every derivative of the problem in FILE: differences, adjoint, symmetry and Fisher tests.

    Derivatives that are wrong for some values only show at the end of a run that has these: --at outputs/NAME.
    """
    with bad_input():
        read = _read(file, settings)
        with mpi_processes(read):
            problem = _built(read)
            from .api import verify as run

            result = run(problem, at)
    click.echo(str(result))
    sys.exit(0 if result.passed else NOT_CONVERGED)


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--methods",
    multiple=True,
    metavar="LIST",
    help="METHOD or LABEL=METHOD[:KEY=VALUE,...], with commas between; nhgd,adjoint by default.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, help="Runs of every method on every problem.")
@click.option("--budget-seconds", type=click.FloatRange(min=0, min_open=True), default=60.0, help="Of a run; 60.")
@click.option("--budget-solves", type=click.IntRange(min=1), help="Of a run; no limit by default.")
@click.option("--grid", is_flag=True, help="Search for constant outer steps first, with a seed of its own.")
@click.option("--gap", type=click.FloatRange(0, 1, True, True), default=1e-4, help="What the search aims at; 1e-4.")
@click.option("--peers", is_flag=True, help="Compare with the hypergradients of other libraries too.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("outputs/bench"), help="outputs/bench")
@_set
def bench(
    files: tuple[Path, ...],
    methods: tuple[str, ...],
    seeds: int,
    budget_seconds: float,
    budget_solves: int | None,
    grid: bool,
    gap: float,
    peers: bool,
    output: Path,
    settings: tuple[str, ...],
) -> None:
    """Run several methods side by side on the problems in FILES; writes tables and figures."""
    with ExitStack() as stack, bad_input():
        for file in files:
            _read(file, settings)
        from .bench.contenders import parse_contenders
        from .bench.report import opened_folder
        from .bench.suite import Plan
        from .bench.trials import Budget

        budget = Budget(budget_seconds, budget_solves or float("inf"))
        contenders = parse_contenders(methods or ("nhgd,adjoint",))
        plan = Plan(contenders, seeds, budget, _overrides(settings), grid, gap, peers)
        tasks = plan.tasks(files)
        folder = stack.enter_context(opened_folder(output))
        sys.exit(_bench(plan, tasks, folder))


def _bench(plan: Plan, tasks: dict[str, Task], folder: Path) -> int:
    """Run a benchmark and write what it has found, to the end or not; returns the exit code."""
    from .bench.report import RESULTS, TABLE, table_text, write_figures, write_tables
    from .bench.suite import bench
    from .run.signals import stop_requested
    from .run.troubles import Troubles

    found: dict[str, ProblemResults] = {}
    command = shlex.join(["nhgd-pde", *sys.argv[1:]])
    stopped = False
    troubles = Troubles(warn)
    try:
        with stop_requested() as interrupted:
            for results in bench(plan, tasks, interrupted, tell):
                if results.name not in found and found:
                    with troubles.bearing("tables"):
                        write_tables(folder, list(found.values()), table_text(list(found.values()), command))
                found[results.name] = results
            stopped = interrupted()
    except KeyboardInterrupt:
        stopped = True
    finally:
        if found:
            remarks = ["cut short: these are the runs that there are"] if stopped else []
            last, text = list(found.values()), table_text(list(found.values()), command, remarks)
            drawn = ""
            with troubles.bearing("tables and figures", lambda: "the table is shown here alone"):
                write_tables(folder, last, text)
                drawn = f"{folder}: {RESULTS}, {TABLE}; {write_figures(folder, last)}"
            click.echo(f"{text}\n{drawn}" if drawn else text)
    return NOT_CONVERGED if stopped or troubles.sentences else 0


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def plot(folder: Path) -> None:
    """Draw state, control, target and convergence of the run in FOLDER into its figure.png."""
    with bad_input():
        from .output.figure import draw_folder

        click.echo(f"{draw_folder(folder)}: open it in any viewer")


@main.command()
def schema() -> None:
    """Print the JSON schema of problem files, for editors."""
    from .problem_file.json_schema import json_schema_text

    click.echo(json_schema_text(), nl=False)


@main.command(name="list")
def list_() -> None:
    """List meshes, equations, controls, objective terms, methods and linear solvers."""
    from .choice.vocabulary import vocabulary

    for title, entries in vocabulary().items():
        click.echo(f"{title}:")
        width = max(len(name) for name in entries)
        for name, text in entries.items():
            click.echo(f"  {name:<{width}}  {text}")


@main.command()
@click.argument("kind")
@click.option("--output", type=click.Path(path_type=Path), help="The file to write; KIND.yaml by default.")
def new(kind: str, output: Path | None) -> None:
    """Write a commented starter file for equations of KIND (see `nhgd-pde list`)."""
    from .problem_file.starter import starter

    try:
        text = starter(kind)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    path = output or Path(f"{kind}.yaml")
    if path.exists():
        raise click.UsageError(f"{path} exists already; name another file with --output")
    with bad_input():
        from .output.atomic import write_atomically

        write_atomically(path, text)
    click.echo(f"{path}: edit it, then nhgd-pde solve {path}")
