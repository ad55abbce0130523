"""The results as pictures, one file for each problem and plot."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .results import ProblemResults
from .trials import TrialPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), without the yellow that white paper swallows; more lines differ in markers and dashes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("-", "--", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "X", "P", "*", "<", ">")
# Largest number of points of a line.
_SAMPLES = 400
# Values below this one are rounding; they are drawn here.
_FLOOR = 1e-14
# The upper end of the axis: a run that diverges leaves the picture there.
_CEILING = 10.0


@dataclass(frozen=True)
class Line:
    """Several runs of one contender: rows of (x, y), a seed each."""

    label: str
    runs: tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass(frozen=True)
class Plot:
    """One figure: its file name's ending, its axes, and the lines."""

    ending: str
    x: str
    y: str
    lines: tuple[Line, ...]


def plots(results: ProblemResults) -> tuple[Plot, ...]:
    """The plots of one problem; those without a line are left out."""
    gap = "relative gap (Phi - Phi*) / (Phi_0 - Phi*)"
    found = [
        Plot("time", "seconds", gap, _gaps(results, lambda point: point.seconds)),
        Plot("iterations", "outer iterations", gap, _gaps(results, lambda point: point.iteration)),
        Plot("solves", "solves", gap, _gaps(results, lambda point: point.counts.solves)),
        Plot("hypergradient", "inner steps", "relative error of the hypergradient", _errors(results)),
    ]
    return tuple(plot for plot in found if plot.lines)


def _gaps(results: ProblemResults, x: Callable[[TrialPoint], float]) -> tuple[Line, ...]:
    judged = [each for label in results.labels for each in results.of(label) if each.truths]
    return _lines((each.run.contender.label, map(x, each.run.points), results.gaps(each)) for each in judged)


def _errors(results: ProblemResults) -> tuple[Line, ...]:
    found = [each for label in results.labels for each in results.errors if each.label == label and each.errors]
    return _lines(
        (each.label, [error.inner_steps for error in each.errors], [error.error for error in each.errors])
        for each in found
    )


def _lines(runs: Iterable[tuple[str, Iterable[float], Iterable[float]]]) -> tuple[Line, ...]:
    """The lines of runs (label, x, y), one for each label."""
    by_label: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for label, x, y in runs:
        by_label.setdefault(label, []).append((np.array(list(x), dtype=float), np.array(list(y))))
    return tuple(Line(label, tuple(found)) for label, found in by_label.items())


def draw(results: ProblemResults, plot: Plot) -> bytes:
    """The figure of a plot as the content of a PNG file."""
    stream = io.BytesIO()
    figure_of(f"{results.name}: {results.description}", plot).savefig(stream, dpi=150, format="png")
    return stream.getvalue()


def figure_of(title: str, plot: Plot) -> Figure:
    """The median over the seeds as a line, and the band from the least to the largest behind it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate([x for line in plot.lines for x, _ in line.runs])
    positive = everything[everything > 0]
    for k, line in enumerate(plot.lines):
        _band(axes, line, k, len(plot.lines))
    axes.set_yscale("log")
    if axes.get_ylim()[1] > _CEILING:
        axes.set_ylim(top=_CEILING)
    if len(positive) and positive.max() > 30 * positive.min():
        if len(positive) < len(everything):
            # Zero, at the start, has a place too.
            axes.set_xscale("symlog", linthresh=positive.min(), linscale=0.3)
            axes.set_xlim(left=0.0)
        else:
            axes.set_xscale("log")
    if axes.get_xscale() == "linear" and plot.x != "seconds":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=plot.x, ylabel=plot.y, title=title)
    axes.grid(True, which="major", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def _band(axes: Axes, line: Line, number: int, lines: int) -> None:
    """Draws median and range of runs. A run keeps each value until its next one, and has its first value before it.

    Later lines are thinner, so that a line that they cover can still be seen.
    """
    colour = _COLOURS[number % len(_COLOURS)]
    x = np.unique(np.concatenate([x for x, _ in line.runs]))
    if len(x) > _SAMPLES:
        x = np.unique(x[np.linspace(0, len(x) - 1, _SAMPLES).astype(int)])
    values = np.array([y[np.maximum(np.searchsorted(at, x, side="right") - 1, 0)] for at, y in line.runs])
    # A run without a state there counts as infinite: a median of the others would flatter.
    values = np.where(np.isnan(values), np.inf, np.maximum(values, _FLOOR))
    low, median, high = values.min(axis=0), np.median(values, axis=0), values.max(axis=0)
    shown = np.isfinite(median)
    axes.fill_between(x, low, high, where=np.isfinite(high), color=colour, alpha=0.18, linewidth=0, step="post")
    axes.plot(
        x[shown],
        median[shown],
        color=colour,
        linestyle=_DASHES[number % len(_DASHES)],
        linewidth=1.3 + 2.2 * (lines - 1 - number) / max(lines - 1, 1),
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=5,
        markevery=max(len(x) // 12, 1),
        drawstyle="steps-post",
        label=line.label if len(line.label) <= 40 else f"{line.label[:37]}...",
    )


def pictures(results: Iterable[ProblemResults]) -> dict[str, bytes]:
    """File name -> PNG."""
    return {f"{each.name}_{plot.ending}.png": draw(each, plot) for each in results for plot in plots(each)}
