"""`nhgd-pde verify`: test every derivative."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..complaints import NOT_CONVERGED, bad_input
from ..run.mpi_processes import mpi_processes
from .arguments import built_problem, checked_file, file_argument, set_option


@click.command()
@file_argument
@set_option
@click.option("--at", type=click.Path(path_type=Path), help="Test at the last control and state of this run folder.")
def verify(file: Path, settings: tuple[str, ...], at: Path | None) -> None:
    """Test every derivative of the problem in FILE: differences, adjoint, symmetry and Fisher tests.

    A derivative that is wrong for some values only is found where the state has them: --at outputs/NAME.
    """
    with bad_input():
        read = checked_file(file, settings)
        with mpi_processes(read):
            problem = built_problem(read)
            from ..api import verify as run

            result = run(problem, at)
    click.echo(str(result))
    sys.exit(0 if result.passed else NOT_CONVERGED)
