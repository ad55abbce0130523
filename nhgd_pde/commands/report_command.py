"""`nhgd-pde report`: one page about a run."""

from __future__ import annotations

from pathlib import Path

import click

from ..complaints import bad_input


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write report.html of the run in FOLDER, one self-contained page with everything about it."""
    with bad_input():
        from ..reports.report_page import report_folder

        click.echo(f"{report_folder(folder)}: open it in a browser")
