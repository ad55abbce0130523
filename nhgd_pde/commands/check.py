"""`nhgd-pde check`: mistakes, sizes and costs, without solving."""

from __future__ import annotations

from pathlib import Path

import click

from ..complaints import bad_input
from ..run.mpi_processes import mpi_processes
from .arguments import built_problem, checked_file, file_argument, set_option


@click.command()
@file_argument
@set_option
@click.option("--no-code", is_flag=True, help="Run no Python file that FILE names; all else is checked.")
def check(file: Path, settings: tuple[str, ...], no_code: bool) -> None:
    """Check FILE without solving it: mistakes, sizes, and what a solve will cost."""
    with bad_input():
        checked = checked_file(file, settings)
        # The file of a task names no code.
        if no_code and not hasattr(checked.spec, "task"):
            from ..building.stand_ins import report_without_code

            click.echo(report_without_code(checked))
            return
        with mpi_processes(checked):
            problem = built_problem(checked)
            click.echo(str(problem))
            click.echo(problem.report())
