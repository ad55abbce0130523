"""The command line: commands, nothing else."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .api import Problem

# Exit codes: 0 converged or completed, 1 ran but did not converge or failed, 2 bad input.
_NOT_CONVERGED = 1
_BAD_INPUT = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nhgd-pde")
def main() -> None:
    """PDE-constrained optimisation and inverse design by natural hypergradient descent.

    A problem is a YAML file; its result is a folder that ParaView opens.
    """


@contextmanager
def _bad_input() -> Iterator[None]:
    """Turn mistakes of the user into a message and exit code 2."""
    from .output.atomic import OutputError
    from .problem.errors import ProblemError

    try:
        yield
    except (ProblemError, OutputError) as error:
        click.echo(str(error), err=True)
        sys.exit(_BAD_INPUT)


def _overrides(settings: tuple[str, ...]) -> dict[str, object]:
    from .problem.loading import parse_override

    return dict(parse_override(text) for text in settings)


def _load(file: Path, settings: tuple[str, ...], method: str | None = None) -> Problem:
    from .api import load

    overrides = _overrides(settings)
    if method is not None:
        overrides["method"] = method
    return load(file, overrides)


_file = click.argument("file", type=click.Path(path_type=Path))
_set = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a value by its dotted path."
)


@main.command()
@_file
@_set
@click.option("--output", type=click.Path(path_type=Path), help="Run folder; outputs/NAME by default.")
@click.option("--method", help="The same as --set method=...; see `nhgd-pde list`.")
@click.option("-v", "--verbose", "mode", flag_value="verbose", help="A line for every outer iteration.")
@click.option("-q", "--quiet", "mode", flag_value="quiet", help="The last line only.")
def solve(file: Path, settings: tuple[str, ...], output: Path | None, method: str | None, mode: str | None) -> None:
    """Solve the problem in FILE and write its run folder."""
    with _bad_input():
        problem = _load(file, settings, method)
        folder = output or Path("outputs") / problem.name
        status = _run(problem, folder, mode or "normal")
    sys.exit(0 if status == "converged" else _NOT_CONVERGED)


def _run(problem: Problem, folder: Path, mode: str) -> str:
    from typing import cast

    from .api import solve
    from .output.progress import Mode, Progress

    with _stop_requested() as interrupted, Progress(sys.stdout, cast(Mode, mode)) as progress:
        progress.start(str(problem))
        solution = solve(problem, progress.iteration, folder, interrupted)
        where = f"{folder}: open fields/state.pvd or final.vtu in ParaView"
        if problem.file.spec.output.every == 0:
            where = f"{folder}: open final.vtu in ParaView"
        progress.finish(f"{solution.status}: {solution.message}\n{where}")
    return solution.status


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """A question that is true after Ctrl-C or SIGTERM; a second Ctrl-C does not wait for the evaluation to end."""
    asked: list[int] = []

    def handle(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@main.command()
@_file
@_set
def check(file: Path, settings: tuple[str, ...]) -> None:
    """Check FILE without solving it: mistakes, sizes, and what a solve will cost."""
    with _bad_input():
        problem = _load(file, settings)
    from .estimate import estimate

    click.echo(str(problem))
    click.echo(f"mesh: {problem.pde.space.domain}")
    click.echo(str(estimate(problem.pde, problem.method)))


@main.command()
@_file
@_set
def verify(file: Path, settings: tuple[str, ...]) -> None:
    """Test every derivative of the problem in FILE: Taylor, adjoint, symmetry and Fisher tests."""
    with _bad_input():
        problem = _load(file, settings)
    from .api import verify as run

    result = run(problem)
    click.echo(str(result))
    sys.exit(0 if result.passed else _NOT_CONVERGED)


@main.command()
def schema() -> None:
    """Print the JSON schema of problem files, for editors."""
    from .problem.json_schema import json_schema_text

    click.echo(json_schema_text(), nl=False)


@main.command(name="list")
def list_() -> None:
    """List meshes, equations, controls, objective terms and methods."""
    from .problem.vocabulary import vocabulary

    for title, entries in vocabulary().items():
        click.echo(f"{title}:")
        width = max(len(name) for name in entries)
        for name, text in entries.items():
            click.echo(f"  {name:<{width}}  {text}")
