"""`nhgd-pde study`: many runs of one problem."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..complaints import NOT_CONVERGED, bad_input, tell
from .arguments import overrides_of, set_option

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the study; outputs/NAME by default.")
@click.option("--processes", type=click.IntRange(min=1), help="Processes that share the runs; as in FILE by default.")
@click.option("--scheduler", metavar="HOST:PORT", help="A Dask cluster that makes the runs.")
@click.option(
    "--resume", is_flag=True, help="Go on: runs that have ended are kept, others go on from their checkpoints."
)
@click.option("--retry", is_flag=True, help="With --resume: make runs that have failed again.")
@click.option("--overwrite", is_flag=True, help="Replace the study in the folder.")
@click.option("-q", "--quiet", is_flag=True, help="The last lines only.")
def study(
    file: Path,
    settings: tuple[str, ...],
    output: Path | None,
    processes: int | None,
    scheduler: str | None,
    resume: bool,
    retry: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Make the runs of the study in FILE: a grid, samples, a continuation, a refinement, an L-curve, a Pareto front.

    Each run has a run folder of its own; the table of all is table.csv, their picture figure.png. --set changes the
    problem of every run.
    """
    with bad_input():
        if resume and overwrite:
            raise click.UsageError("--resume goes on with a study, --overwrite begins anew: give one of them")
        from ..problem_file.announcing import announced
        from ..run.signals import stop_requested
        from ..studies.conducting import study as make

        def finished(row: Mapping[str, Any]) -> None:
            if not quiet:
                click.echo(_line(row))

        with stop_requested() as interrupted, announced(tell):
            made = make(
                file,
                overrides_of(settings),
                output,
                processes,
                scheduler,
                resume,
                overwrite,
                retry,
                finished,
                interrupted,
                tell,
            )
            stopped = interrupted()
    click.echo(made.table())
    counts = ", ".join(f"{count} {status}" for status, count in made.counts.items())
    more = "; --resume goes on" if stopped else ""
    click.echo(f"{made.folder}: {len(made.rows)} runs, {counts}{more}; open table.csv or figure.png")
    sys.exit(0 if made.complete else NOT_CONVERGED)


def _line(row: Mapping[str, Any]) -> str:
    """What is said when a run has ended."""
    name = row["folder"] or f"run {row['run']}"
    if row["objective"] is None:
        return f"{name}: {row['status']}: {row['message']}"
    return (
        f"{name}: {row['status']}, objective {row['objective']:.6e}, {row['iterations']} iterations, "
        f"{row['solves']} solves, {row['seconds']:.2g} s"
    )
