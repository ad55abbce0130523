"""How one field is drawn into one pair of axes: as a curve, a map, a slice, a part of the boundary, or over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .colour_images import Raster
from .fields import Grid
from .slices import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Number of corners of a cell, which come first among its nodes.
CORNERS = {"line": 2, "line3": 2, "triangle": 3, "triangle6": 3, "quad": 4, "quad9": 4}
# From this number of triangles on, an image is sampled: drawing each triangle would take longer than seconds.
_MANY_TRIANGLES = 30_000
# Arrows of a vector field along the longer side of the domain.
_ARROWS = 14


@dataclass(frozen=True)
class Colours:
    """The colour map of a field and its limits; `map_name` is matplotlib's."""

    map_name: str
    low: float
    high: float

    @property
    def drawing(self) -> dict[str, Any]:
        """The options of matplotlib's drawing functions."""
        return {"cmap": self.map_name, "vmin": self.low, "vmax": self.high}


def colours_of(values: Sequence[np.ndarray], share: bool = False) -> Colours:
    """Blue and red about zero for values of both signs, else a map from dark to bright.

    Args:
        values: the fields that are drawn with these colours.
        share: the values are shares of a material, from 0 to 1.
    """
    if share:
        return Colours("gray_r", 0.0, 1.0)
    finite = np.concatenate([np.zeros(0), *(each[np.isfinite(each)].ravel() for each in values)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    size = max(abs(low), abs(high))
    # Values of one sign may reach a little beyond zero, by discretisation errors.
    if min(-low, high) > 0.05 * size:
        return Colours("RdBu_r", -size, size)
    # A constant gets a range, so that rounding errors do not look like a pattern.
    if high - low <= 1e-9 * size or size == 0.0:
        low, high = low - 0.5 * (size or 1.0), high + 0.5 * (size or 1.0)
    return Colours("viridis" if high >= -low else "viridis_r", low, high)


class Plane:
    """The triangles of a plane domain or of a slice, on which values are drawn as colours.

    Attributes:
        cells: (M,) the cell of each triangle.
        names: of the two axes.
    """

    def __init__(self, points: np.ndarray, triangles: np.ndarray, cells: np.ndarray, names: str = "xy") -> None:
        self.points, self.triangles, self.cells, self.names = points, triangles, cells, names
        self._raster = Raster(points, triangles) if len(triangles) > _MANY_TRIANGLES else None

    @classmethod
    def of(cls, grid: Grid) -> Plane:
        """The triangles of a plane grid, a quadrilateral as two."""
        corners = grid.cells[:, : CORNERS[grid.cell_type]]
        parts = corners.shape[1] - 2
        triangles = np.concatenate([corners[:, [0, k, k + 1]] for k in range(1, 1 + parts)])
        return cls(grid.points, triangles, np.tile(np.arange(len(corners)), parts))

    @classmethod
    def across(cls, cut: Slice) -> Plane:
        """The triangles of a slice."""
        names = "".join(letter for k, letter in enumerate("xyz") if k != cut.axis)
        return cls(cut.points, cut.triangles, cut.cells, names)

    def draw(self, axes: Axes, values: np.ndarray, at_points: bool, colours: Colours) -> Any:
        """Draws values at points, or in cells, as colours; those that are not finite stay white."""
        _name_axes(axes, self.names)
        values = values if at_points else values[self.cells]
        if self._raster is not None:
            image = self._raster.image(values, at_points)
            return axes.imshow(image, origin="lower", extent=self._raster.extent, **colours.drawing)
        from matplotlib.tri import Triangulation

        finite = np.isfinite(values)
        plane = Triangulation(self.points[:, 0], self.points[:, 1], self.triangles)
        if not finite.all():
            plane.set_mask(~(finite[self.triangles].all(axis=1) if at_points else finite))
        if at_points:
            return axes.tripcolor(plane, np.where(finite, values, 0.0), shading="gouraud", **colours.drawing)
        return axes.tripcolor(plane, facecolors=np.where(finite, values, 0.0), **colours.drawing)


def draw_curve(axes: Axes, grid: Grid, values: np.ndarray, **style: Any) -> None:
    """Draws values at the points, or in the cells, of an interval; those of cells are constant between their ends."""
    x = positions(grid, values)
    order = np.argsort(x)
    if len(values) == len(grid.points):
        axes.plot(x[order], values[order], **style)
    else:
        ends = np.sort(grid.points[grid.cells[order, :2], 0], axis=1)
        axes.plot(ends.ravel(), np.repeat(values[order], 2), **style)
    axes.set_xlabel("x")
    axes.grid(alpha=0.3)


def positions(grid: Grid, values: np.ndarray) -> np.ndarray:
    """The x of each value: of a point, or of the middle of a cell."""
    if len(values) == len(grid.points):
        return grid.points[:, 0]
    return np.asarray(grid.points[grid.cells[:, : CORNERS[grid.cell_type]], 0].mean(axis=1))


def draw_over_time(
    axes: Axes, grid: Grid, moments: Sequence[np.ndarray], times: Sequence[float], colours: Colours
) -> Any:
    """Draws values on an interval at several times as colours over x and t."""
    x = positions(grid, moments[0])
    order = np.argsort(x)
    values = np.ma.masked_invalid(np.stack(moments)[:, order])
    axes.set_xlabel("x")
    axes.set_ylabel("t")
    return axes.pcolormesh(x[order], times, values, shading="gouraud", **colours.drawing)


def draw_marks(axes: Axes, places: np.ndarray) -> None:
    """Marks places (k, 2), above what is drawn there; the more there are, the smaller."""
    if len(places):
        size = float(np.clip(40.0 / np.sqrt(len(places)), 1.2, 5.0))
        style = {"markerfacecolor": "white", "markeredgecolor": "black", "markeredgewidth": 0.12 * size}
        axes.plot(*places.T, "o", markersize=size, zorder=4, clip_on=False, **style)  # type: ignore[arg-type]


def draw_arrows(axes: Axes, grid: Grid, vectors: np.ndarray) -> None:
    """Draws a few arrows along vectors (N, 2) at points of a plane grid, as long as the vectors are."""
    low, size = grid.points.min(axis=0), np.ptp(grid.points, axis=0).max()
    step = size / _ARROWS
    # The point that is nearest to the middle of each square of a lattice.
    squares = np.floor((grid.points - low) / step)
    away = np.sum(((grid.points - low) / step - squares - 0.5) ** 2, axis=1)
    order = np.lexsort((away, squares[:, 1], squares[:, 0]))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.any(np.diff(squares[order], axis=0) != 0, axis=1)
    chosen = order[first & (away[order] < 0.5)]
    chosen = chosen[np.all(np.isfinite(vectors[chosen]), axis=1)]
    longest = np.linalg.norm(vectors[chosen], axis=1).max(initial=0.0)
    if longest > 0.0:
        arrows = vectors[chosen] / longest * step
        axes.quiver(
            *grid.points[chosen].T, *arrows.T, angles="xy", scale_units="xy", scale=1.0, color="white",
            edgecolor="0.2", linewidth=0.4, width=0.007, pivot="mid",
        )  # fmt: skip


def on_ends_alone(grid: Grid, moments: Sequence[np.ndarray]) -> bool:
    """Whether values at the points of an interval are zero, at all times, at all points but its two ends."""
    x = grid.points[:, 0]
    if len(moments[0]) != len(x) or len(x) < 3:
        return False
    inside = (x > x.min()) & (x < x.max())
    return not any(np.nan_to_num(each)[inside].any() for each in moments)


def on_boundary_alone(grid: Grid, values: np.ndarray) -> bool:
    """Whether values at the points of a plane grid are zero, or not there, at all points inside."""
    # Of many points few are on the boundary, which need not be found where most have values.
    if len(values) > 1000 and 2 * np.count_nonzero(np.nan_to_num(values)) > len(values):
        return False
    # Corners alone: between a corner on the boundary and one inside, quadratic elements have half of the value.
    corners = np.unique(grid.cells[:, : CORNERS[grid.cell_type]])
    inside = np.setdiff1d(corners, _boundary_edges(grid)[:, :2])
    return len(inside) > 0 and bool(np.nan_to_num(values).any()) and not np.nan_to_num(values[inside]).any()


def draw_on_boundary(axes: Axes, grid: Grid, values: np.ndarray, colours: Colours) -> Any:
    """Draws values at points of the boundary of a plane domain as a thick line."""
    from matplotlib.collections import LineCollection

    edges = _boundary_edges(grid)
    _name_axes(axes, "xy")
    axes.add_collection(LineCollection(list(grid.points[edges]), colors="0.85", linewidths=1.0))
    means = values[edges].mean(axis=1)
    ends = np.count_nonzero(np.nan_to_num(values[edges]), axis=1)
    # Edges with one end in the part of the control lead away from it, unless the part has no others.
    seen = np.isfinite(means) & (ends >= ends.max())
    lines = LineCollection(list(grid.points[edges[seen]]), cmap=colours.map_name, linewidths=5.0, clip_on=False)
    lines.set_array(means[seen])
    lines.set_clim(colours.low, colours.high)
    axes.add_collection(lines, autolim=True)
    axes.margins(0.05)
    axes.autoscale_view()
    return lines


def _boundary_edges(grid: Grid) -> np.ndarray:
    """The edges (k, 2) that belong to one cell alone, by the numbers of their ends."""
    corners = CORNERS[grid.cell_type]
    edges = np.concatenate([grid.cells[:, [k, (k + 1) % corners]] for k in range(corners)])
    _, first, times = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    return np.asarray(edges[first[times == 1]])


def _name_axes(axes: Axes, names: str) -> None:
    axes.set_aspect("equal")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1], rotation=0)
    axes.locator_params(nbins=5)
