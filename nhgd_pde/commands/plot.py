"""`nhgd-pde plot`: the picture of a run."""

from __future__ import annotations

from pathlib import Path

import click

from ..complaints import bad_input


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def plot(folder: Path) -> None:
    """Draw state, control, target and convergence of the run in FOLDER into its figure.png."""
    with bad_input():
        from ..output.figure import draw_folder

        click.echo(f"{draw_folder(folder)}: open it in any viewer")
