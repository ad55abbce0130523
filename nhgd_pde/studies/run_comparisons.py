"""The pictures of studies whose runs are compared by one result: curves, a heat map, points, or parallel axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .setting_axes import SettingAxis, is_wide, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Up to this many values of a second setting each have a curve of their own; more are drawn as a heat map.
_CURVES = 4
# Up to this many cells of a heat map have their values written into them.
_WRITTEN = 42
# Ticks of one of several parallel axes.
_TICKS = 4


def compared(settings: Sequence[SettingAxis], name: str, values: np.ndarray, combined: bool) -> Figure:
    """A result over the settings of the runs.

    Args:
        name: of the result.
        values: (runs,) of the result, all finite.
        combined: the runs are all combinations of values of the settings.
    """
    from matplotlib.figure import Figure

    many = len(settings) > 2
    figure = Figure(figsize=(1.6 * len(settings) + 3.2 if many else 5.6, 4.4), layout="constrained")
    axes = figure.subplots()
    if many:
        _parallel(axes, [*settings, SettingAxis(name, values, None, is_wide(values))], values)
    elif len(settings) == 1:
        _curves(axes, settings[0], None, name, values)
    elif not combined:
        _points(axes, settings[0], settings[1], name, values)
    else:
        _combinations(axes, settings[0], settings[1], name, values)
    return figure


def _combinations(axes: Axes, first: SettingAxis, second: SettingAxis, name: str, values: np.ndarray) -> None:
    """Curves over the first setting, or over the second one where this has the numbers; else a heat map."""
    pairs = [(first, second), (second, first)]
    for along, family in pairs:
        if along.names is None and len(family.different) <= _CURVES and len(along.different) > 2:
            _curves(axes, along, family, name, values)
            return
    _heat_map(axes, first, second, name, values)


def _curves(axes: Axes, along: SettingAxis, family: SettingAxis | None, name: str, values: np.ndarray) -> None:
    """The result over one setting, with a curve for each value of another one."""
    members = [0.0] if family is None else family.different.tolist()
    for position in members:
        own = np.ones(len(values), dtype=bool) if family is None else family.positions == position
        order = np.flatnonzero(own)[np.argsort(along.positions[own], kind="stable")]
        label = None if family is None else f"{family.name} = {family.text(position)}"
        axes.plot(along.positions[order], values[order], "o-", label=label)
    along.apply(axes, "x")
    axes.set_ylabel(name)
    if is_wide(values):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if family is not None:
        axes.legend(fontsize="small")


def _heat_map(axes: Axes, first: SettingAxis, second: SettingAxis, name: str, values: np.ndarray) -> None:
    """The result as colours over two settings; combinations without a result stay white."""
    columns, rows = first.different, second.different
    found = np.full((len(rows), len(columns)), np.nan)
    places = np.searchsorted(rows, second.positions), np.searchsorted(columns, first.positions)
    found[places] = values
    wide = is_wide(values)
    drawn = axes.pcolormesh(
        first.edges(), second.edges(), np.ma.masked_invalid(found), norm="log" if wide else "linear"
    )
    if found.size <= _WRITTEN:
        for i, k in zip(*places, strict=True):
            dark = np.asarray(drawn.norm(found[i, k])) < 0.6
            axes.text(
                columns[k], rows[i], number_text(found[i, k]), color="white" if dark else "black", fontsize="x-small",
                ha="center", va="center",
            )  # fmt: skip
    _with_bar(axes, drawn, first, second, name)


def _points(axes: Axes, first: SettingAxis, second: SettingAxis, name: str, values: np.ndarray) -> None:
    """A point for each run, its result as a colour."""
    norm = "log" if is_wide(values) else "linear"
    drawn = axes.scatter(first.positions, second.positions, c=values, norm=norm, s=60)
    axes.grid(alpha=0.3)
    _with_bar(axes, drawn, first, second, name)


def _with_bar(axes: Axes, drawn: Any, first: SettingAxis, second: SettingAxis, name: str) -> None:
    first.apply(axes, "x")
    second.apply(axes, "y")
    axes.figure.colorbar(drawn, ax=axes, label=name)


def _parallel(axes: Axes, columns: Sequence[SettingAxis], values: np.ndarray) -> None:
    """A line for each run through its settings and its result, coloured by the result."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    norm = (LogNorm if is_wide(values) else Normalize)(values.min(), values.max())
    heights = [_heights(column.scaled, column.scaled) for column in columns]
    for row, value in zip(np.array(heights).T, values, strict=True):
        axes.plot(range(len(columns)), row, color=colormaps["viridis"](norm(value)), alpha=0.8)
    # Texts have a ground of their own, so that they can be read where lines end.
    ground = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "0.8", "linewidth": 0.5}
    for k, column in enumerate(columns):
        axes.axvline(k, color="0.6", linewidth=1.0)
        ticks = _ticks(column)
        for tick, height in zip(ticks, _heights(ticks, column.scaled), strict=True):
            text = column.text(10.0**tick if column.logarithmic else tick)
            axes.text(k, height, text, fontsize="x-small", ha="center", va="center", bbox=ground, zorder=5)
    axes.set_xlim(-0.35, len(columns) - 0.65)
    axes.set_xticks(range(len(columns)), [column.name for column in columns], rotation=20, ha="right")
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes, label=columns[-1].name)


def _heights(scaled: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Places along an axis from 0 to 1, relative to the values `of` it; a single value is in the middle."""
    span = np.ptp(of)
    return np.asarray((scaled - of.min()) / span if span > 0.0 else np.full(len(scaled), 0.5))


def _ticks(column: SettingAxis) -> np.ndarray:
    """Few values themselves, else even lengths along the axis."""
    different = np.unique(column.scaled)
    few = len(different) <= _TICKS + 2 or column.names is not None
    return different if few else np.linspace(different[0], different[-1], _TICKS)
