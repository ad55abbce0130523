"""Pictures of fields and of the way to an answer for a quick look; of a body in three dimensions, a slice."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .field_layout import Panel, Pictured, field_panels, flat
from .fields import Grid
from .mesh_panel import mesh_panels
from .sensor_panels import sensor_panels
from .time_panels import time_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Width of a panel in inches, and the range of its height.
_WIDTH, _LOWEST, _HIGHEST = 4.2, 2.2, 4.4
# A domain is wide if its height is less than this fraction of its width.
_WIDE = 0.62


def picture(shown: Pictured, names: Sequence[str], title: str, rows: Sequence[Mapping[str, object]] = ()) -> Figure:
    """Draw some fields side by side, vectors by their length and a few arrows; names that are not there are left out.

    Args:
        rows: of a history; with two or more, the objective and the gradient are drawn over the iterations as well.

    Raises:
        ValueError: none of the names is there.
    """
    if not field_panels(shown, names):
        there = ", ".join([*shown.data.point, *shown.data.cell]) or "nothing"
        raise ValueError(f"expected one of {', '.join(names)}, found {there}")
    panels = [*answer_panels(shown, names), *convergence_panels(rows)]
    return arranged(panels, title, panel_height(shown.grid))


def answer_panels(shown: Pictured, names: Sequence[str]) -> list[Panel]:
    """The panels of fields, of controls over time, of sensors, and of a graded mesh."""
    return [*field_panels(shown, names), *time_panels(shown), *sensor_panels(shown), *mesh_panels(shown)]


def arranged(panels: Sequence[Panel], title: str, height: float, columns: int | None = None) -> Figure:
    """Panels in rows, below a title.

    Args:
        height: of a panel, in inches.
        columns: in a row; by default as many as leave few places empty in a picture that is wider than high.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    count = len(panels)
    columns = columns or min(range(1, count + 1), key=lambda k: _awkwardness(count, k, height))
    lines = -(-count // columns)
    figure = Figure(figsize=(_WIDTH * columns, height * lines + 0.3), layout="constrained")
    if title:
        figure.suptitle("\n".join(textwrap.wrap(title, int(18 * columns * _WIDTH / 2)) or [""]))
    every = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, panel in zip(every, panels, strict=False):
        axes.set_title(panel.title, fontsize="medium")
        axes.tick_params(labelsize="small")
        drawn = panel.draw(axes)
        if drawn is not None:
            # The bar of a wide domain is below it, where there is room.
            wide = axes.get_aspect() != "auto" and np.ptp(axes.get_ylim()) < _WIDE * np.ptp(axes.get_xlim())
            place, numbers = "bottom" if wide else "right", ScalarFormatter()
            numbers.set_powerlimits((-3, 4))
            bar = figure.colorbar(drawn, ax=axes, shrink=0.85, location=place, aspect=25, format=numbers)
            bar.ax.tick_params(labelsize="small")
    for axes in every[count:]:
        axes.set_axis_off()
    return figure


def _awkwardness(count: int, columns: int, height: float) -> float:
    """How far panels in so many columns are from a full picture of 1.6 times its height."""
    lines = -(-count // columns)
    return abs(math.log(columns * _WIDTH / (lines * height) / 1.6)) + 1.5 * (columns * lines - count) / count


def png(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def panel_height(grid: Grid) -> float:
    """The height of a panel, in inches: that of the domain, within limits."""
    grid = flat(grid)
    if grid.points.shape[1] == 1:
        return 3.2
    extent = np.ptp(grid.points, axis=0)
    width, depth = np.delete(extent, np.argmin(extent)) if len(extent) == 3 else extent
    room = 1.5 if depth < _WIDE * width else 0.75
    return float(min(max(3.0 * depth / width + room, _LOWEST), _HIGHEST))


def convergence_panels(rows: Sequence[Mapping[str, object]]) -> list[Panel]:
    """The panel of the norm of the gradient and of the objective over the iterations; none for less than two rows."""
    return [Panel("convergence", lambda axes: _draw_history(axes, rows))] if len(rows) > 1 else []


def _draw_history(axes: Axes, rows: Sequence[Mapping[str, object]]) -> None:
    """Draws the norm of the gradient, relative to the first one, and how far the objective is above its last value."""
    from matplotlib.ticker import MaxNLocator

    iterations = [row["iteration"] for row in rows]
    norms, values = (np.array([row[key] for row in rows], dtype=float) for key in ("gradient_norm", "objective"))
    marker = "." if len(rows) < 60 else ""
    if norms[0] > 0.0 and np.any(norms > 0.0):
        axes.semilogy(
            iterations, np.where(norms > 0.0, norms, np.nan) / norms[0], marker=marker, label="|gradient| / first"
        )
    above = values - values[-1]
    size = np.abs(above).max()
    if size > 0.0:
        # The last value itself, and rounding errors of the values, have no logarithm.
        seen = np.where(above > 1e-15 * size, above / size, np.nan)
        axes.semilogy(iterations, seen, marker=marker, label="(objective - last) / largest")
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")


def gallery(images: np.ndarray, labels: np.ndarray, columns: int = 10) -> Figure:
    """Images (N, rows, columns) in a grid, each with its label."""
    from matplotlib.figure import Figure

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(0.9 * columns, 1.05 * rows), layout="constrained")
    limits = {"vmin": float(images.min()), "vmax": float(images.max())}
    for k, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if k < len(images):
            axes.imshow(images[k], cmap="gray_r", **limits)
            axes.set_title(str(labels[k]), fontsize=8)
    return figure


def histogram(values: np.ndarray, weights: np.ndarray, marks: Mapping[str, float], title: str) -> Figure:
    """Draws the distribution of weighted values, and marks some values by name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=min(max(len(values) // 10, 5), 50), density=True, weights=weights, color="0.75")
    axes.set_title(title)
    axes.set_xlabel("objective")
    for k, (name, value) in enumerate(marks.items()):
        axes.axvline(value, color=f"C{k}", label=f"{name}: {value:.4g}")
    axes.legend()
    return figure
