"""Pictures of fields and of the way to an answer for a quick look; of a body in three dimensions, a slice."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .field_panels import (
    CORNERS,
    Colours,
    Plane,
    colours_of,
    draw_arrows,
    draw_curve,
    draw_on_boundary,
    draw_over_time,
    on_boundary_alone,
)
from .fields import FieldData, Grid
from .slices import Slice, middle_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Most panels with fields in a picture.
_MOST_PANELS = 11
# Fields with limits that differ by more than this factor get limits of their own.
_COMPARABLE = 3.0
# Width of a panel in inches, and the range of its height.
_WIDTH, _LOWEST, _HIGHEST = 4.2, 2.2, 4.4
# A domain is wide if its height is less than this fraction of its width.
_WIDE = 0.62
# Names that begin so follow the states, in this order; other names are left out of a quick look.
_AFTER = ("control", "density", "target")
_LEFT_OUT = ("adjoint", "sensitivity", "multiplier")


@dataclass(frozen=True, eq=False)
class Panel:
    """One drawing: its title, and a function that draws it and returns what a colour bar shows, or None."""

    title: str
    draw: Callable[[Axes], Any]


@dataclass(frozen=True, eq=False)
class Pictured:
    """What is drawn: fields on a grid, and of an evolution the fields at some of its times.

    Attributes:
        moments: at rising times, the last one `data`; empty for a steady problem.
    """

    grid: Grid
    data: FieldData
    moments: Sequence[FieldData] = ()


def picture(shown: Pictured, names: Sequence[str], title: str, rows: Sequence[Mapping[str, object]] = ()) -> Figure:
    """Draw some fields side by side, vectors by their length and a few arrows; names that are not there are left out.

    Args:
        rows: of a history; with two or more, the objective and the gradient are drawn over the iterations as well.

    Raises:
        ValueError: none of the names is there.
    """
    panels = field_panels(shown, names)
    if not panels:
        there = ", ".join([*shown.data.point, *shown.data.cell]) or "nothing"
        raise ValueError(f"expected one of {', '.join(names)}, found {there}")
    return arranged([*panels, *convergence_panels(rows)], title, panel_height(shown.grid))


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


def pictured(data: FieldData) -> tuple[str, ...]:
    """The names of final.vtu for a quick look: states, then controls and densities, then targets; no derivatives."""
    names = [name for name in (*data.point, *data.cell) if not name.startswith(_LEFT_OUT)]
    return tuple(sorted(names, key=lambda name: name.startswith(_AFTER) + name.startswith("target")))


def field_panels(shown: Pictured, names: Sequence[str]) -> list[Panel]:
    """A panel for each of the names that is there; of an evolution, the state at several times."""
    there = [name for name in names if name in shown.data.point or name in shown.data.cell][:_MOST_PANELS]
    grid = flat(shown.grid)
    dim = grid.points.shape[1]
    if dim == 1:
        return _panels_in_1d(grid, shown, there)
    main = next((name for name in there if not name.startswith(_AFTER)), "")
    moments = [shown.data] if len(shown.moments) < 2 else _few(shown.moments)
    drawn: list[tuple[str, FieldData, str]] = []
    for name in there:
        own = (
            moments if not name.startswith(_AFTER) else [moments[len(moments) // 2] if len(moments) > 1 else shown.data]
        )
        if len(moments) > 1 and not _varies(moments, name):
            own = [shown.data]
        time = len(own) > 1 or (len(moments) > 1 and _varies(moments, name))
        drawn += [(name, each, f" at t = {each.time:.4g}" if time else "") for each in own]
    groups = _limits([(name, _lengths(each, name)) for name, each, _ in drawn], main)
    cut = middle_slice(grid) if dim == 3 else None
    place = "" if cut is None else f", {cut[1]}"
    plane = Plane.of(grid) if cut is None else Plane.across(cut[0])
    return [
        Panel(
            f"{_label(each, name)}{when}{place}",
            _drawing(grid, plane, None if cut is None else cut[0], each, name, colours),
        )
        for (name, each, when), colours in zip(drawn, groups, strict=True)
    ]


def _few(moments: Sequence[FieldData]) -> list[FieldData]:
    """The first moment unless all is zero there, the middle one and the last one."""
    chosen = [moments[0], moments[len(moments) // 2], moments[-1]] if len(moments) > 2 else list(moments)
    states = [values for name, values in chosen[0].point.items() if not name.startswith((*_AFTER, *_LEFT_OUT))]
    return chosen if any(np.any(each) for each in states) else chosen[1:]


def _varies(moments: Sequence[FieldData], name: str) -> bool:
    first = _values(moments[0], name)
    return any(not np.array_equal(_values(each, name), first, equal_nan=True) for each in moments[1:])


def _values(data: FieldData, name: str) -> np.ndarray:
    return np.asarray(data.point[name] if name in data.point else data.cell[name])


def _lengths(data: FieldData, name: str) -> np.ndarray:
    """The values of a field, of a vector their lengths."""
    values = _values(data, name)
    return values if values.ndim == 1 else np.linalg.norm(values, axis=1)


def _label(data: FieldData, name: str) -> str:
    return name if _values(data, name).ndim == 1 else f"|{name}|"


def _group(name: str, main: str) -> str:
    """Fields that may be compared by their colours have one group: targets and the states that they are meant for."""
    if name.startswith("target"):
        suffix = name.removeprefix("target")
        return f"{main.removesuffix('_real').removesuffix('_imag')}{suffix}" if suffix else main
    for end in ("_best", "_median", "_worst"):
        name = name.removesuffix(end)
    return name


def _limits(fields: Sequence[tuple[str, np.ndarray]], main: str) -> list[Colours]:
    """The colours of each field at all of its times, or of its group if all of them have values of a similar size."""
    found = []
    for name, values in fields:
        own = [each for other, each in fields if other == name]
        together = [each for other, each in fields if _group(other, main) == _group(name, main)]
        sizes = [np.abs(each[np.isfinite(each)]).max(initial=0.0) for each in together]
        alike = max(sizes) <= _COMPARABLE * min(sizes)
        material = name.startswith("density") or any(other.startswith("density") for other, _ in fields)
        share = name.endswith("_exceedance") or (material and name.startswith(("control", "density")))
        within = not np.any((values < -1e-6) | (values > 1 + 1e-6))
        found.append(colours_of(together if alike else own, share and within))
    return found


def _drawing(
    grid: Grid, plane: Plane, cut: Slice | None, data: FieldData, name: str, colours: Colours
) -> Callable[[Axes], Any]:
    """Draws one field in two or three dimensions."""
    values, at_points = _lengths(data, name), name in data.point
    vectors = _values(data, name)

    def draw(axes: Axes) -> Any:
        if cut is not None:
            return plane.draw(axes, cut.values(values) if at_points else values, at_points, colours)
        if at_points and name.startswith("control") and on_boundary_alone(grid, values):
            return draw_on_boundary(axes, grid, values, colours)
        drawn = plane.draw(axes, values, at_points, colours)
        if at_points and vectors.ndim == 2:
            draw_arrows(axes, grid, vectors[:, :2])
        return drawn

    return draw


def _panels_in_1d(grid: Grid, shown: Pictured, names: Sequence[str]) -> list[Panel]:
    """Curves over an interval, a target in the panel of its state; what varies in time, as colours over x and t."""
    moments, panels = shown.moments, []
    over_time = [name for name in names if len(moments) > 2 and _varies(moments, name)]
    curves = [name for name in names if name not in over_time]
    main = next((name for name in names if not name.startswith(_AFTER)), "")
    groups = _limits([(name, np.stack([_lengths(each, name) for each in moments])) for name in over_time], main)
    for name, colours in zip(over_time, groups, strict=True):
        panels.append(Panel(_label(shown.data, name), _over_time(grid, moments, name, colours)))
    together = [name for name in curves if name == main or name.startswith("target")]
    sets = [together] if main in curves else [[name] for name in together]
    for group in [*sets, *([name] for name in curves if name not in together)]:
        panels.append(Panel(" and ".join(_label(shown.data, name) for name in group), _curves(grid, shown.data, group)))
    return panels


def _over_time(grid: Grid, moments: Sequence[FieldData], name: str, colours: Colours) -> Callable[[Axes], Any]:
    times, values = [each.time for each in moments], [_lengths(each, name) for each in moments]
    return lambda axes: draw_over_time(axes, grid, values, times, colours)


def _curves(grid: Grid, data: FieldData, names: Sequence[str]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for name in names:
            style = {"linestyle": "--"} if name.startswith("target") else {}
            draw_curve(axes, grid, _lengths(data, name), label=_label(data, name), **style)
        if len(names) > 1:
            axes.legend(fontsize="small")

    return draw


def dimension(grid: Grid) -> int:
    """The dimension of the cells of a grid."""
    return 1 if grid.cell_type.startswith("line") else 2 if grid.cell_type in CORNERS else 3


def shown_levels(count: int, dim: int) -> list[int]:
    """Which of `count` times of an evolution are drawn: at most three, on an interval at most 61; none of one time."""
    if count < 2:
        return []
    wanted = min(count, 61 if dim == 1 else 3)
    return [round(k * (count - 1) / (wanted - 1)) for k in range(wanted)]


def flat(grid: Grid) -> Grid:
    """The grid without the coordinates that a file adds to points in one or two dimensions."""
    dim = dimension(grid)
    return grid if grid.points.shape[1] == dim else Grid(grid.points[:, :dim], grid.cells, grid.cell_type)


def convergence_panels(rows: Sequence[Mapping[str, object]]) -> list[Panel]:
    """The panel of the norm of the gradient and of the objective over the iterations; none for less than two rows."""
    return [Panel("convergence", lambda axes: _draw_history(axes, rows))] if len(rows) > 1 else []


def _draw_history(axes: Axes, rows: Sequence[Mapping[str, object]]) -> None:
    """Draws the norm of the gradient, relative to the first one, and how far the objective is above its last value."""
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
