"""The picture of a run folder, from its files alone."""

from __future__ import annotations

import io
from pathlib import Path

from .atomic import OutputError, write_atomically
from .fields import read_vtu
from .names import FIGURE, FINAL, HISTORY, IMAGES
from .run_folder import read_ended, read_history


def draw_folder(folder: Path) -> Path:
    """Draw fields and convergence of a run that has ended into figure.png of its folder; returns the path.

    Raises:
        OutputError: there is no run that has ended, or it has no fields; matplotlib is not installed.
    """
    _, summary = read_ended(folder)
    if not (folder / FINAL).exists():
        there = f"; {folder / IMAGES} is its picture" if (folder / IMAGES).exists() else ""
        raise OutputError(f"{folder}: expected {FINAL}, found none{there}")
    try:
        from .pictures import picture, pictured

        grid, data = read_vtu(folder / FINAL)
        rows = read_history(folder) if (folder / HISTORY).exists() else []
        figure = picture(grid, data, pictured(data), f"{summary['name']}: {summary['status']}", rows)
    except ImportError as missing:
        raise OutputError(f"{missing}: pip install 'nhgd-pde[plot]'") from None
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_atomically(folder / FIGURE, content.getvalue())
    return folder / FIGURE
