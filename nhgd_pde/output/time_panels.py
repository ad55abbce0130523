"""Panels of the controls that vary in time, as curves with their bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .controls_over_time import TimeCurve
from .field_layout import Panel, Pictured, dimension

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Most controls that have a panel.
_MOST = 6
# A bound is drawn if it is no further from the values than this many times their range.
_NEAR = 2.0


def time_panels(shown: Pictured) -> list[Panel]:
    """A panel for each control that varies in time; none for a field on an interval that is drawn over x and t."""
    over_x = dimension(shown.grid) == 1 and bool(shown.moments)
    drawn = [each for each in shown.curves if not (each.is_norm and over_x)]
    names = list(dict.fromkeys(each.control for each in drawn))[:_MOST]
    panels = []
    for name in names:
        own = [each for each in drawn if each.control == name]
        panels.append(Panel(f"norm of {name} over time" if own[0].is_norm else f"{name} over time", _drawing(own)))
    return panels


def _drawing(curves: Sequence[TimeCurve]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for k, curve in enumerate(curves):
            _draw(axes, curve, curve.values, color=f"C{k}", label=None if curve.is_norm else curve.label or None)
        low, high = axes.get_ylim()
        reach = _NEAR * (high - low)
        for k, curve in enumerate(curves):
            for bound in (curve.lower, curve.upper):
                if np.isfinite(bound).all() and low - reach <= bound.min() and bound.max() <= high + reach:
                    named = {"label": "bounds"} if len(axes.lines) == len(curves) else {}
                    _draw(axes, curve, bound, color=f"C{k}" if len(curves) > 1 else "0.4", linestyle="--", **named)
        axes.set_xlabel("t")
        if curves[0].is_norm:
            axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small")

    return draw


def _draw(axes: Axes, curve: TimeCurve, values: np.ndarray, **style: object) -> None:
    """Draws values as steps over the spans of time in which they act, or as a line between their times."""
    times = np.column_stack([curve.starts, curve.ends])
    axes.plot(times.ravel(), np.repeat(values, 2), **style)  # type: ignore[arg-type]
