"""Pictures of fields and of the way to an answer for a quick look; of a body in three dimensions, a slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .fields import FieldData, Grid
from .slices import Slice, middle_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure

# Number of corners of a cell, which come first among its nodes.
_CORNERS = {"line": 2, "line3": 2, "triangle": 3, "triangle6": 3, "quad": 4, "quad9": 4}


def picture(
    grid: Grid, data: FieldData, names: Sequence[str], title: str, rows: Sequence[Mapping[str, object]] = ()
) -> Figure:
    """Draw some fields side by side, vectors by their length; names that are not there are left out.

    Args:
        rows: of a history; with two or more, the objective and the gradient are drawn over the iterations as well.

    Raises:
        ValueError: none of the names is there.
    """
    from matplotlib.figure import Figure

    flat = _flat(grid)
    shown = [name for name in names if name in data.point or name in data.cell]
    if not shown:
        raise ValueError(
            f"expected one of {', '.join(names)}, found {', '.join([*data.point, *data.cell]) or 'nothing'}"
        )
    count = len(shown) + (len(rows) > 1)
    height = max(_height(flat), 2.4) if len(rows) > 1 else _height(flat)
    figure = Figure(figsize=(4.6 * count, height), layout="constrained")
    cut = middle_slice(flat) if flat.points.shape[1] == 3 else None
    figure.suptitle(title if cut is None else f"{title}; the slice {cut[1]}")
    every = list(np.atleast_1d(figure.subplots(1, count)))
    for axes, name in zip(every, shown, strict=False):
        values, label = _lengths(data, name)
        axes.set_title(label)
        drawn = _drawn(axes, flat, None if cut is None else cut[0], values, name in data.point)
        if drawn is not None:
            figure.colorbar(drawn, ax=axes, shrink=0.8)
    if len(rows) > 1:
        _draw_history(every[-1], rows)
    return figure


def _lengths(data: FieldData, name: str) -> tuple[np.ndarray, str]:
    """The values of a field, of a vector their lengths, and its label."""
    values = data.point[name] if name in data.point else data.cell[name]
    return (values, name) if values.ndim == 1 else (np.linalg.norm(values, axis=1), f"|{name}|")


def _drawn(axes: Axes, grid: Grid, cut: Slice | None, values: np.ndarray, at_points: bool) -> Collection | None:
    """Draws values at points or in cells, on a slice if there is one; the colours, None for a curve."""
    if cut is not None:
        return _draw_slice(axes, cut, values, at_points)
    if grid.points.shape[1] > 1:
        return _draw_map(axes, grid, values, at_points)
    _draw_curve(axes, grid, values, at_points)
    return None


def _flat(grid: Grid) -> Grid:
    """The grid without the coordinates that a file adds to points in one or two dimensions."""
    dim = 1 if grid.cell_type.startswith("line") else 2 if grid.cell_type in _CORNERS else 3
    return grid if grid.points.shape[1] == dim else Grid(grid.points[:, :dim], grid.cells, grid.cell_type)


def _draw_history(axes: Axes, rows: Sequence[Mapping[str, object]]) -> None:
    """Draws the norm of the gradient, relative to the first one, and how far the objective is above its last value."""
    iterations = [row["iteration"] for row in rows]
    norms, values = (np.array([row[key] for row in rows], dtype=float) for key in ("gradient_norm", "objective"))
    if norms[0] > 0.0:
        axes.semilogy(iterations, norms / norms[0], marker=".", label="gradient / first gradient")
    above = values - values[-1]
    size = np.abs(above).max()
    if size > 0.0:
        # The last value itself, and rounding errors of the values, have no logarithm.
        seen = np.where(above > 1e-15 * size, above / size, np.nan)
        axes.semilogy(iterations, seen, marker=".", label="(objective - last) / largest")
    axes.set_title("convergence")
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")


def pictured(data: FieldData) -> tuple[str, ...]:
    """The names of final.vtu for a quick look: states, then controls and densities, then targets; no derivatives."""
    after, left_out = ("target", "density", "control"), ("adjoint", "sensitivity", "multiplier")
    # States have values at nodes; coefficients and stresses, which are not drawn, in cells.
    cells = [name for name in data.cell if name.startswith(("control", "density"))]
    shown = [name for name in (*data.point, *cells) if not name.startswith(left_out)]
    # Complex fields are drawn by their two parts.
    names = [name for name in shown if not name.endswith("_magnitude")]
    # A density without a filter and a projection is the control.
    every = {**data.cell, **data.point}
    twins = {name: name.replace("density", "control", 1) for name in names if name.startswith("density")}
    same = {name for name, twin in twins.items() if twin in every and np.array_equal(every[name], every[twin])}
    names = [name for name in names if name not in same]
    return tuple(sorted(names, key=lambda name: name.startswith(after) + name.startswith("target")))


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


def _height(grid: Grid) -> float:
    """The height of the figure, in inches: that of the domain, less for a long one."""
    if grid.points.shape[1] == 1:
        return 4.0
    extent = np.ptp(grid.points, axis=0)
    width, depth = np.delete(extent, np.argmin(extent)) if len(extent) == 3 else extent
    return float(min(max(3.2 * depth / width, 0.8) + 0.8, 6.0))


def _corners(grid: Grid) -> np.ndarray:
    return grid.cells[:, : _CORNERS[grid.cell_type]]


def _draw_curve(axes: Axes, grid: Grid, values: np.ndarray, at_points: bool) -> None:
    """Draws values over an interval; the value of a cell at its middle."""
    x = grid.points[:, 0] if at_points else grid.points[_corners(grid), 0].mean(axis=1)
    order = np.argsort(x)
    axes.plot(x[order], values[order])


def _draw_map(axes: Axes, grid: Grid, values: np.ndarray, at_points: bool) -> Collection:
    """Draws values over a plane domain as colours; a quadrilateral is drawn as two triangles."""
    from matplotlib.tri import Triangulation

    corners = _corners(grid)
    triangles = np.concatenate([corners[:, [0, k, k + 1]] for k in range(1, corners.shape[1] - 1)])
    axes.set_aspect("equal")
    plane = Triangulation(grid.points[:, 0], grid.points[:, 1], triangles)
    if at_points:
        return axes.tripcolor(plane, values, shading="gouraud")
    return axes.tripcolor(plane, facecolors=np.tile(values, len(triangles) // len(corners)))


def _draw_slice(axes: Axes, cut: Slice, values: np.ndarray, at_points: bool) -> Collection:
    """Draws values on a slice as colours."""
    from matplotlib.tri import Triangulation

    axes.set_aspect("equal")
    plane = Triangulation(cut.points[:, 0], cut.points[:, 1], cut.triangles)
    if at_points:
        return axes.tripcolor(plane, cut.values(values), shading="gouraud")
    return axes.tripcolor(plane, facecolors=values[cut.cells])


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
