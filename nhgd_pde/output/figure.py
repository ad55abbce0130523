"""The picture of a run folder, from its files alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .atomic import OutputError, write_atomically
from .controls_over_time import read_curves
from .fields import FieldData, FieldSeries, read_vtu
from .names import CONTROLS, EVOLUTION, FIGURE, FINAL, HISTORY, IMAGES, SENSORS
from .run_folder import read_ended, read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .field_layout import Pictured


def draw_folder(folder: Path) -> Path:
    """Draw fields and convergence of a run that has ended into figure.png of its folder; returns the path.

    Raises:
        OutputError: there is no run that has ended, or it has no fields.
    """
    _, summary = read_ended(folder)
    if not (folder / FINAL).exists():
        there = f"; {folder / IMAGES} is its picture" if (folder / IMAGES).exists() else ""
        raise OutputError(f"{folder}: expected {FINAL}, found none{there}")
    from .field_layout import pictured
    from .pictures import picture, png

    shown = pictured_in(folder)
    rows = read_history(folder) if (folder / HISTORY).exists() else []
    names = pictured(shown.data)
    write_atomically(folder / FIGURE, png(picture(shown, names, title_of(summary), rows)))
    return folder / FIGURE


def write_figure(folder: Path, figure: Figure) -> Path:
    """Write a figure as the picture of a run folder; returns its path.

    Raises:
        StorageError: the system does not take the file.
    """
    from .pictures import png

    write_atomically(folder / FIGURE, png(figure))
    return folder / FIGURE


def title_of(summary: Mapping[str, Any]) -> str:
    """The title of the picture of a run."""
    return f"{summary['name']}: {summary['status']}"


def pictured_in(folder: Path) -> Pictured:
    """The fields of final.vtu, and of an evolution those at some of its times; controls over time, and sensors.

    Raises:
        OutputError: a file cannot be read.
    """
    from .field_layout import Pictured, dimension, shown_levels

    grid, data = read_vtu(folder / FINAL)
    series = FieldSeries.resume(folder / EVOLUTION, EVOLUTION)
    indices = list(series.times)
    moments: list[FieldData] = []
    for k in shown_levels(len(indices), dimension(grid)):
        moments.append(read_vtu(series.file_path(indices[k]))[1])
    sensors = read_vtu(folder / SENSORS) if (folder / SENSORS).exists() else None
    return Pictured(grid, data, moments, read_curves(folder / CONTROLS), sensors)
