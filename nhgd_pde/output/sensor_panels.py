"""Panels that compare measured and computed values at sensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .field_layout import Panel, Pictured
from .fields import FieldData, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Most sensors whose values are drawn over time.
_MOST = 4


@dataclass(frozen=True, eq=False)
class _Measurements:
    """One measured component of the state.

    Attributes:
        name: of the component; empty for a scalar state.
        points: (k, dim) places.
        terms, times: (k,) the term of each measurement, and its time, NaN for none.
        measured, computed: (k,).
        deviation: (k,) of the computed values over scenarios; None without random inputs.
    """

    name: str
    points: np.ndarray
    terms: np.ndarray
    times: np.ndarray
    measured: np.ndarray
    computed: np.ndarray
    deviation: np.ndarray | None

    @property
    def title(self) -> str:
        return f", {self.name}" if self.name else ""

    def stations(self) -> list[np.ndarray]:
        """For each sensor with several measurements the numbers of these in the order of their times."""
        _, owner = np.unique(np.column_stack([self.terms, self.points]), axis=0, return_inverse=True)
        order = np.lexsort((self.times, owner.reshape(-1)))
        order = order[np.isfinite(self.times[order])]
        parts = np.split(order, np.flatnonzero(np.diff(owner.reshape(-1)[order])) + 1)
        return [each for each in parts if len(each) > 1]


def sensor_panels(shown: Pictured) -> list[Panel]:
    """Panels of each measured component: a few sensors over time, and all computed values over the measured ones.

    The second one is left out where the first one has all measurements.
    """
    if shown.sensors is None:
        return []
    panels = []
    for each in _components(*shown.sensors, shown.grid):
        stations = each.stations()
        chosen = _spread([float(each.measured[own].mean()) for own in stations])
        if chosen:
            count = f"{len(chosen)} of {len(stations):,} sensors" if len(chosen) < len(stations) else "sensors"
            title = f"{count}: measured (dots), computed{each.title}"
            drawn = [stations[k] for k in chosen]
            panels.append(Panel(title, _over_time(each, drawn)))
        if sum(len(stations[k]) for k in chosen) < len(each.measured):
            panels.append(Panel(f"sensors: computed over measured{each.title}", _against(each)))
    return panels


def _components(grid: Grid, data: FieldData, mesh: Grid) -> Iterator[_Measurements]:
    """The measured components; those of vectors that a file has filled up with zeros are left out."""
    count = len(grid.points)
    terms, times = (np.asarray(data.point.get(key, np.full(count, np.nan)), float) for key in ("term", "time"))
    extents = np.ptp(mesh.points, axis=0)
    points = grid.points[:, : max(int(np.flatnonzero(extents > 0.0).max(initial=0)) + 1, 1)]
    for name in data.point:
        if not name.startswith("measured") or name.replace("measured", "computed", 1) not in data.point:
            continue
        label = name.removeprefix("measured").removeprefix("_")
        measured, computed, deviation = (
            None if values is None else np.asarray(values, float).reshape(count, -1)
            for values in (
                data.point[name],
                data.point[name.replace("measured", "computed", 1)],
                data.point.get(name.replace("measured", "computed_std", 1)),
            )
        )
        assert measured is not None and computed is not None
        for k in range(measured.shape[1]):
            known = np.isfinite(measured[:, k])
            if known.any() and (measured.shape[1] == 1 or np.any(measured[known, k]) or np.any(computed[known, k])):
                axis = "xyz"[k] if measured.shape[1] > 1 else label
                own = None if deviation is None else deviation[known, k]
                yield _Measurements(
                    axis, points[known], terms[known], times[known], measured[known, k], computed[known, k], own
                )


def _spread(sizes: Sequence[float]) -> list[int]:
    """The numbers of a few entries that are spread evenly over all in the order of their sizes."""
    order = np.argsort(sizes, kind="stable")
    places = np.linspace(0, len(order) - 1, min(len(order), _MOST)).round().astype(int)
    return [int(order[k]) for k in places]


def _over_time(found: _Measurements, stations: Sequence[np.ndarray]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for k, own in enumerate(stations):
            place = ", ".join(f"{x:.3g}" for x in found.points[own[0]])
            axes.plot(found.times[own], found.measured[own], "o", color=f"C{k}", markersize=3.5)
            axes.plot(found.times[own], found.computed[own], "-", color=f"C{k}", label=f"at ({place})")
            if found.deviation is not None:
                low, high = (found.computed[own] + sign * found.deviation[own] for sign in (-1, 1))
                axes.fill_between(found.times[own], low, high, color=f"C{k}", alpha=0.2, linewidth=0)
        axes.set_xlabel("t")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    return draw


def _against(found: _Measurements) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        size = float(np.clip(40.0 / np.sqrt(len(found.measured)), 1.5, 5.0))
        style: dict[str, Any] = {"color": "C0", "markersize": size, "alpha": 0.7, "zorder": 3}
        if found.deviation is None:
            axes.plot(found.measured, found.computed, "o", **style)
        else:
            axes.errorbar(
                found.measured,
                found.computed,
                found.deviation,
                fmt="o",
                elinewidth=0.6,
                label="with deviation",
                **style,
            )
        axes.axline((found.measured[0], found.measured[0]), slope=1.0, color="0.5", linewidth=1.0)
        axes.set_xlabel("measured")
        axes.set_ylabel("computed")
        axes.grid(alpha=0.3)

    return draw
