"""Pictures of fields for a quick look, in one and two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .fields import FieldData, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure

# Number of corners of a cell, which come first among its nodes.
_CORNERS = {"line": 2, "line3": 2, "triangle": 3, "triangle6": 3, "quad": 4, "quad9": 4}


def picture(grid: Grid, data: FieldData, names: Sequence[str], title: str) -> Figure:
    """Draw some fields side by side, vectors by their length; names that are not there are left out.

    Raises:
        ValueError: the grid is three-dimensional, or none of the names is there.
    """
    from matplotlib.figure import Figure

    dim = grid.points.shape[1]
    shown = [name for name in names if name in data.point or name in data.cell]
    if dim == 3:
        raise ValueError("pictures are for one and two dimensions; open final.vtu of a saved run in ParaView")
    if not shown:
        raise ValueError(
            f"expected one of {', '.join(names)}, found {', '.join([*data.point, *data.cell]) or 'nothing'}"
        )
    figure = Figure(figsize=(4.6 * len(shown), _height(grid)), layout="constrained")
    figure.suptitle(title)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        at_points = name in data.point
        values = data.point[name] if at_points else data.cell[name]
        axes.set_title(name if values.ndim == 1 else f"|{name}|")
        if values.ndim > 1:
            values = np.linalg.norm(values, axis=1)
        if dim == 1:
            _draw_curve(axes, grid, values, at_points)
        else:
            figure.colorbar(_draw_map(axes, grid, values, at_points), ax=axes, shrink=0.8)
    return figure


def _height(grid: Grid) -> float:
    """The height of the figure, in inches: that of the domain, less for a long one."""
    if grid.points.shape[1] == 1:
        return 4.0
    width, depth = np.ptp(grid.points, axis=0)
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
