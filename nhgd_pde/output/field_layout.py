"""Which fields of an answer are drawn, at which times, and with which colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    draw_marks,
    draw_on_boundary,
    draw_over_time,
    on_boundary_alone,
    on_ends_alone,
)
from .fields import FieldData, Grid
from .slices import Slice, middle_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .controls_over_time import TimeCurve

# Most fields in a picture.
_MOST_FIELDS = 11
# Fields with limits that differ by more than this factor get limits of their own.
_COMPARABLE = 3.0
# Times of an evolution that are drawn: over an interval as colours, else as pictures.
_TIMES_IN_1D, _TIMES = 61, 3
# Names that begin so follow the states, in this order; other names are left out of a quick look.
_AFTER = ("control", "density", "target")
_LEFT_OUT = ("adjoint", "sensitivity", "multiplier")
# Sensors this far from a slice, relative to the extent of the body across it, are marked there.
_NEAR_SLICE = 0.05


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
        curves: the controls that vary in time.
        sensors: places of measurements, with the fields of sensors.vtu; None without sensors.
    """

    grid: Grid
    data: FieldData
    moments: Sequence[FieldData] = ()
    curves: Sequence[TimeCurve] = ()
    sensors: tuple[Grid, FieldData] | None = None

    def varies(self, name: str) -> bool:
        """Whether a field changes in time."""
        values = [values_of(each, name) for each in self.moments]
        return any(not np.array_equal(each, values[0], equal_nan=True) for each in values)


def pictured(data: FieldData) -> tuple[str, ...]:
    """The names of final.vtu for a quick look: states, then controls and densities, then targets; no derivatives."""
    # States have values at nodes; coefficients and stresses, which are not drawn, in cells. Complex fields are drawn by
    # their two parts.
    cells = [name for name in data.cell if name.startswith(("control", "density"))]
    names = [name for name in (*data.point, *cells) if not (name.startswith(_LEFT_OUT) or name.endswith("_magnitude"))]
    # A density without a filter and a projection is the control.
    every = {**data.cell, **data.point}
    twins = {name: name.replace("density", "control", 1) for name in names if name.startswith("density")}
    same = {name for name, twin in twins.items() if twin in every and np.array_equal(every[name], every[twin])}
    shown = (name for name in names if name not in same)
    return tuple(sorted(shown, key=lambda name: name.startswith(_AFTER) + name.startswith("target")))


def dimension(grid: Grid) -> int:
    """The dimension of the cells of a grid."""
    return 1 if grid.cell_type.startswith("line") else 2 if grid.cell_type in CORNERS else 3


def sensor_places(shown: Pictured, cut: Slice | None = None) -> np.ndarray:
    """(k, dim) the places of the sensors, each once; of a slice (k, 2) those that are close to it."""
    dim = dimension(shown.grid)
    if shown.sensors is None:
        return np.zeros((0, dim))
    found = np.unique(shown.sensors[0].points[:, :dim], axis=0)
    if cut is None:
        return found
    across = shown.grid.points[:, cut.axis]
    away = np.abs(found[:, cut.axis] - cut.values(across)[0])
    return np.asarray(np.delete(found[away <= _NEAR_SLICE * np.ptp(across)], cut.axis, axis=1))


def shown_levels(count: int, dim: int) -> list[int]:
    """Which of `count` times of an evolution are drawn; none of one time."""
    if count < 2:
        return []
    wanted = min(count, _TIMES_IN_1D if dim == 1 else _TIMES)
    return [round(k * (count - 1) / (wanted - 1)) for k in range(wanted)]


def flat(grid: Grid) -> Grid:
    """The grid without the coordinates that a file adds to points in one or two dimensions."""
    dim = dimension(grid)
    return grid if grid.points.shape[1] == dim else Grid(grid.points[:, :dim], grid.cells, grid.cell_type)


def field_panels(shown: Pictured, names: Sequence[str]) -> list[Panel]:
    """A panel for each of the names that is there; of an evolution, the state at several times."""
    there = [name for name in names if name in shown.data.point or name in shown.data.cell][:_MOST_FIELDS]
    main = next((name for name in there if not name.startswith(_AFTER)), "")
    grid = flat(shown.grid)
    if dimension(grid) == 1:
        return [*_panels_over_time(grid, shown, there, main), *_panels_of_curves(grid, shown, there, main)]
    drawn = [(name, *moment) for name in there for moment in _moments(shown, name)]
    colours = _colours([(name, lengths_of(data, name)) for name, data, _ in drawn], main)
    canvas = _Canvas.of(grid)
    marks = {main: sensor_places(shown, canvas.cut)}
    return [
        Panel(f"{_label(data, name)}{when}{canvas.place}", canvas.drawing(data, name, own, marks.get(name)))
        for (name, data, when), own in zip(drawn, colours, strict=True)
    ]


def values_of(data: FieldData, name: str) -> np.ndarray:
    """The values of a field, at points or in cells."""
    return np.asarray(data.point[name] if name in data.point else data.cell[name])


def lengths_of(data: FieldData, name: str) -> np.ndarray:
    """The values of a field, of a vector their lengths."""
    values = values_of(data, name)
    return values if values.ndim == 1 else np.linalg.norm(values, axis=1)


def _label(data: FieldData, name: str) -> str:
    return name if values_of(data, name).ndim == 1 else f"|{name}|"


def _moments(shown: Pictured, name: str) -> list[tuple[FieldData, str]]:
    """The times at which a field is drawn, and what its title says about the time: targets once."""
    if not shown.varies(name):
        return [(shown.data, _when(shown, name))]
    found = list(shown.moments)
    if name.startswith("target"):
        found = [found[len(found) // 2]]
    elif not np.any(values_of(found[0], name)):
        found = found[1:]  # A state that starts from zero.
    return [(each, f" at t = {each.time:.4g}") for each in found]


def _when(shown: Pictured, name: str) -> str:
    """What a title says about the time of a field of an evolution that is drawn at one time alone."""
    changing = {f"control_{each.control}" for each in shown.curves} | ({"control"} if shown.curves else set())
    alone = not shown.moments and shown.data.time > 0.0 and (not name.startswith(_AFTER) or name in changing)
    return f" at t = {shown.data.time:.4g}" if alone else ""


def _group(name: str, main: str) -> str:
    """The field that a field may be compared with by its colours: a target with the state that it is meant for."""
    if name.startswith("target"):
        suffix = name.removeprefix("target")
        return f"{main.removesuffix('_real').removesuffix('_imag')}{suffix}" if suffix else main
    for end in ("_best", "_median", "_worst"):
        name = name.removesuffix(end)
    return name


def _colours(fields: Sequence[tuple[str, np.ndarray]], main: str) -> list[Colours]:
    """The colours of each field at all of its times, or of its group if all of them have values of a similar size."""
    found = []
    material = any(name.startswith("density") for name, _ in fields)
    for name, values in fields:
        own = [each for other, each in fields if other == name]
        together = [each for other, each in fields if _group(other, main) == _group(name, main)]
        sizes = [np.abs(each[np.isfinite(each)]).max(initial=0.0) for each in together]
        alike = max(sizes) <= _COMPARABLE * min(sizes)
        share = name.endswith("_exceedance") or (material and name.startswith(("control", "density")))
        within = not np.any((values < -1e-6) | (values > 1 + 1e-6))
        found.append(colours_of(together if alike else own, share and within))
    return found


@dataclass(frozen=True, eq=False)
class _Canvas:
    """The triangles on which the fields of a grid are drawn.

    Attributes:
        cut: the slice that they belong to; None in the plane.
        place: where the slice is, as the end of a title.
    """

    grid: Grid
    plane: Plane
    cut: Slice | None = None
    place: str = ""

    @classmethod
    def of(cls, grid: Grid) -> _Canvas:
        """The plane grid itself, or the slice through the middle of a body."""
        if grid.points.shape[1] == 2:
            return cls(grid, Plane.of(grid))
        cut, place = middle_slice(grid)
        return cls(grid, Plane.across(cut), cut, f", {place}")

    def drawing(
        self, data: FieldData, name: str, colours: Colours, marks: np.ndarray | None = None
    ) -> Callable[[Axes], Any]:
        """Draws one field, and marks (k, 2) on it."""
        values, at_points, vectors = lengths_of(data, name), name in data.point, values_of(data, name)

        def draw(axes: Axes) -> Any:
            if marks is not None:
                draw_marks(axes, marks)
            if self.cut is not None:
                own = self.cut.values(values) if at_points else values
                return self.plane.draw(axes, own, at_points, colours)
            if at_points and name.startswith("control") and on_boundary_alone(self.grid, values):
                return draw_on_boundary(axes, self.grid, values, colours)
            drawn = self.plane.draw(axes, values, at_points, colours)
            if at_points and vectors.ndim == 2:
                draw_arrows(axes, self.grid, vectors[:, :2])
            return drawn

        return draw


def _panels_over_time(grid: Grid, shown: Pictured, names: Sequence[str], main: str) -> list[Panel]:
    """The fields over an interval that change in time, as colours over x and t."""
    times = [each.time for each in shown.moments]
    fields = [(name, [lengths_of(each, name) for each in shown.moments]) for name in names if shown.varies(name)]
    # What acts at the ends of the interval alone would be a line at the edge of such a picture.
    fields = [each for each in fields if not (each[0].startswith("control") and on_ends_alone(grid, each[1]))]
    colours = _colours([(name, np.stack(values)) for name, values in fields], main)

    def drawing(name: str, values: Sequence[np.ndarray], own: Colours) -> Callable[[Axes], Any]:
        def draw(axes: Axes) -> Any:
            if name == main and shown.sensors is not None:
                draw_marks(axes, _places_over_time(*shown.sensors, times))
            return draw_over_time(axes, grid, values, times, own)

        return draw

    panels = zip(fields, colours, strict=True)
    return [Panel(_label(shown.data, name), drawing(name, values, own)) for (name, values), own in panels]


def _places_over_time(grid: Grid, data: FieldData, times: Sequence[float]) -> np.ndarray:
    """(k, 2) place and time of the measurements on an interval; those without a time are at the end."""
    when = data.point.get("time", np.full(len(grid.points), np.nan))
    found = np.column_stack([grid.points[:, 0], np.where(np.isfinite(when), when, times[-1])])
    return np.asarray(np.unique(found, axis=0))


def _panels_of_curves(grid: Grid, shown: Pictured, names: Sequence[str], main: str) -> list[Panel]:
    """The other fields over an interval as curves, targets in the panel of their state."""
    curves = [name for name in names if not shown.varies(name)]
    with_targets = [name for name in curves if name == main or name.startswith("target")]
    first = with_targets if main in curves else []
    groups = [*([first] if first else []), *([name] for name in curves if name not in first)]
    return [
        Panel(
            " and ".join(_label(shown.data, name) for name in group) + _when(shown, group[0]),
            _curves(grid, shown, group, main in group),
        )
        for group in groups
    ]


def _curves(grid: Grid, shown: Pictured, names: Sequence[str], measured: bool) -> Callable[[Axes], None]:
    """Draws fields as curves; with `measured`, of steady problems also what sensors have measured."""
    data = shown.data

    def draw(axes: Axes) -> None:
        sensors = shown.sensors
        if measured and sensors is not None and "measured" in sensors[1].point and "time" not in sensors[1].point:
            values = np.asarray(sensors[1].point["measured"])
            axes.plot(sensors[0].points[:, 0], values, "o", color="0.4", markersize=3.5, label="measured")
        for name in names:
            style = {"linestyle": "--"} if name.startswith("target") else {}
            draw_curve(axes, grid, lengths_of(data, name), label=_label(data, name), **style)
        if len(axes.lines) > 1:
            axes.legend(fontsize="small")

    return draw
