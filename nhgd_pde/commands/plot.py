"""`nhgd-pde plot`: the picture of a run or of a study."""

from __future__ import annotations

from pathlib import Path

import click

from ..complaints import bad_input


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def plot(folder: Path) -> None:
    """Draw state, control, target and convergence of the run in FOLDER into its figure.png.

    FOLDER may also be that of a study, whose picture is then drawn again.
    """
    with bad_input():
        from ..output.figure import draw_folder
        from ..studies.study_folder import is_study

        click.echo(f"{(_draw_study if is_study(folder) else draw_folder)(folder)}: open it in any viewer")


def _draw_study(folder: Path) -> Path:
    """Draws the picture of a study; returns its path.

    Raises:
        OutputError: the study is damaged, or there is nothing to draw.
    """
    from ..output.storage import OutputError
    from ..studies.study_folder import PICTURE
    from ..studies.study_result import Study

    missing = Study.load(folder).write_picture()
    if missing:
        raise OutputError(f"{folder}: {missing}")
    return folder / PICTURE
