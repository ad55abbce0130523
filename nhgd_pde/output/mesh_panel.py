"""The panel of a plane mesh whose cells differ much in size, such as an adapted one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .field_layout import Panel, Pictured, dimension, flat
from .field_panels import CORNERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A mesh is drawn if its largest cell has at least this many times the area of its smallest one, and it has at most this
# many cells, whose edges can still be told apart.
_GRADED, _MOST = 15.0, 30_000


def mesh_panels(shown: Pictured) -> list[Panel]:
    """One panel for a graded mesh of a plane domain, else none."""
    grid = flat(shown.grid)
    if dimension(grid) != 2 or grid.points.shape[1] != 2 or len(grid.cells) > _MOST:
        return []
    polygons = grid.points[grid.cells[:, : CORNERS[grid.cell_type]]]
    x, y = polygons[..., 0], polygons[..., 1]
    areas = 0.5 * np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1))
    if not areas.max() >= _GRADED * areas.min() > 0.0:
        return []
    return [Panel(f"mesh ({len(areas):,d} cells)", lambda axes: _draw(axes, polygons))]


def _draw(axes: Axes, polygons: np.ndarray) -> None:
    from matplotlib.collections import PolyCollection

    axes.set_aspect("equal")
    axes.set_xlabel("x")
    axes.set_ylabel("y", rotation=0)
    axes.locator_params(nbins=5)
    width = float(np.clip(20.0 / np.sqrt(len(polygons)), 0.15, 0.5))
    axes.add_collection(PolyCollection(list(polygons), edgecolors="0.3", facecolors="none", linewidths=width))
    axes.autoscale_view()
