"""`nhgd-pde place`: the best places for sensors."""

from __future__ import annotations

from pathlib import Path

import click

from ..complaints import bad_input, tell
from .arguments import built_problem, checked_file, file_argument, set_option


@click.command()
@file_argument
@set_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of the answer; outputs/NAME_placement by default."
)
@click.option(
    "--run", type=click.Path(path_type=Path), help="Run folder of FILE, whose control is the most likely one."
)
def place(file: Path, settings: tuple[str, ...], output: Path | None, run: Path | None) -> None:
    """Choose the best of the candidate sensors of FILE, and write the answer and its picture.

    FILE has the sections `inference` and `placement`. If what sensors measure depends nonlinearly on the control, the
    problem is solved first, or its most likely control is read from the run folder of --run.
    """
    with bad_input():
        read = checked_file(file, settings)
        folder = output or Path("outputs") / f"{read.spec.name}_placement"
        from ..api import place_sensors
        from ..output.storage import OutputError
        from ..run.placement_files import check_placement_folder, placement_lines, write_placement
        from ..run.solution import Solution

        if not hasattr(read.spec, "placement") or read.spec.placement is None:
            raise read.error("placement", "missing; expected candidate sensors, such as {grid: [9, 9], count: 8}")
        check_placement_folder(folder)
        problem = built_problem(read)
        for notice in problem.notices:
            tell(f"warning: {notice}")
        if run is None and not problem.pde.quadratic:
            tell("the most likely control is found first; --run DIR takes that of a run")
        try:
            placement = place_sensors(problem, at=None if run is None else Solution.load(run))
        except ArithmeticError as error:
            raise OutputError(f"{file}: {error}") from error
        write_placement(placement, folder)
    for line in placement_lines(placement):
        click.echo(line)
    click.echo(f"{folder}: figure.png shows the places, sensors.csv is a file of sensors for `at`")
