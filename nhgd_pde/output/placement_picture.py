"""The picture of a choice of sensors: the standard deviation before and after, and what each candidate tells alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .field_layout import Panel, Pictured, dimension, field_panels, sensor_places
from .fields import FieldData, Grid
from .pictures import arranged, panel_height
from .slices import middle_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How places are drawn: candidates, sensors that are there, and chosen candidates.
_STYLES: dict[str, dict[str, Any]] = {
    "candidates": {"marker": "o", "s": 5.0, "color": "0.75", "linewidths": 0.0},
    "existing": {"marker": "s", "s": 26.0, "color": "white", "edgecolors": "black", "linewidths": 0.8},
    "chosen": {"marker": "o", "s": 34.0, "color": "red", "edgecolors": "white", "linewidths": 0.8},
}


@dataclass(frozen=True, eq=False)
class DrawnPlaces:
    """Places of sensors.

    Attributes:
        candidates, existing, chosen: (k, dim).
        alone: the criterion of each candidate alone.
    """

    candidates: np.ndarray
    existing: np.ndarray
    chosen: np.ndarray
    alone: np.ndarray


def placement_picture(grid: Grid, data: FieldData, places: DrawnPlaces, title: str) -> Figure:
    """The fields before_std and std of each control, with the places, and the candidates coloured by `alone`."""
    names = [name for name in (*data.point, *data.cell) if not name.startswith("prior")]
    sets = {"candidates": places.candidates, "existing": places.existing, "chosen": places.chosen}
    panels = []
    for panel in field_panels(Pictured(grid, data), names):
        shown = {key: sets[key] for key in sets if key != "chosen" or not panel.title.startswith("before")}
        panels.append(Panel(panel.title, _with_places(panel.draw, grid, shown)))
    seen = ", along z" if places.candidates.shape[1] == 3 else ""
    panels.append(Panel(f"criterion of each candidate alone{seen}", _alone(places)))
    return arranged(panels, title, panel_height(grid))


def _with_places(draw: Callable[[Axes], Any], grid: Grid, sets: Mapping[str, np.ndarray]) -> Callable[[Axes], Any]:
    cut = middle_slice(grid)[0] if dimension(grid) == 3 else None

    def drawn(axes: Axes) -> Any:
        bar, bottom = draw(axes), axes.get_ylim()[0]
        for name, points in sets.items():
            if not len(points):
                continue
            own = Grid(points, np.arange(len(points))[:, None], "vertex")
            shown = sensor_places(Pictured(grid, FieldData(), sensors=(own, FieldData())), cut)
            # Places on an interval are marked at the bottom of its curves.
            y = np.full(len(shown), bottom) if shown.shape[1] == 1 else shown[:, 1]
            axes.scatter(shown[:, 0], y, zorder=4, clip_on=False, **_STYLES[name])
        return bar

    return drawn


def _alone(places: DrawnPlaces) -> Callable[[Axes], Any]:
    def draw(axes: Axes) -> Any:
        points = places.candidates
        if points.shape[1] == 1:
            axes.plot(points[:, 0], places.alone, ".")
            own = np.isin(points[:, 0], places.chosen[:, 0])
            axes.scatter(points[own, 0], places.alone[own], s=60.0, facecolors="none", edgecolors="red")
            axes.set_xlabel("x")
            return None
        # Of candidates above one another, the best is seen.
        order = np.argsort(places.alone, kind="stable")
        drawn = axes.scatter(points[order, 0], points[order, 1], c=places.alone[order], s=18.0)
        axes.scatter(places.chosen[:, 0], places.chosen[:, 1], s=60.0, facecolors="none", edgecolors="red")
        axes.set_aspect("equal")
        axes.set_xlabel("x")
        axes.set_ylabel("y")
        return drawn

    return draw
