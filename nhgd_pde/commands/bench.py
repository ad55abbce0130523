"""`nhgd-pde bench`: methods side by side."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..complaints import NOT_CONVERGED, bad_input, tell, warn
from .arguments import checked_file, overrides_of, set_option

if TYPE_CHECKING:
    from ..bench.results import ProblemResults
    from ..bench.suite import Plan
    from ..bench.trials import Task


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--methods",
    multiple=True,
    metavar="LIST",
    help="METHOD or LABEL=METHOD[:KEY=VALUE,...], with commas between; nhgd,adjoint by default.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, help="Runs of every method on every problem.")
@click.option(
    "--budget-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    help="Wall time of a run; 60 by default.",
)
@click.option("--budget-solves", type=click.IntRange(min=1), help="Linear solves of a run; no limit by default.")
@click.option("--grid", is_flag=True, help="Search for constant outer steps first, with a seed of its own.")
@click.option(
    "--gap",
    type=click.FloatRange(0, 1, True, True),
    default=1e-4,
    help="Gap for which --grid searches steps; 1e-4 by default.",
)
@click.option("--peers", is_flag=True, help="Compare with the hypergradients of other libraries too.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("outputs/bench"),
    help="Folder of the results; outputs/bench by default.",
)
@set_option
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
            checked_file(file, settings)
        from ..bench.contenders import parse_contenders
        from ..bench.report import opened_folder
        from ..bench.suite import Plan
        from ..bench.trials import Budget

        budget = Budget(budget_seconds, budget_solves or float("inf"))
        contenders = parse_contenders(methods or ("nhgd,adjoint",))
        plan = Plan(contenders, seeds, budget, overrides_of(settings), grid, gap, peers)
        tasks = plan.tasks(files)
        folder = stack.enter_context(opened_folder(output))
        sys.exit(_bench(plan, tasks, folder))


def _bench(plan: Plan, tasks: dict[str, Task], folder: Path) -> int:
    """Run a benchmark and write what it has found, to the end or not; returns the exit code."""
    from ..bench.report import RESULTS, TABLE, table_text, write_figures, write_tables
    from ..bench.suite import bench
    from ..run.signals import stop_requested
    from ..run.troubles import Troubles

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
