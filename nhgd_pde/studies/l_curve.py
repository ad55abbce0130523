"""The L-curve: misfit against regularisation for many weights, and its corner by the largest curvature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Points between two weights at which the curvature is evaluated.
_POINTS = 50
# Where the points of neighbouring weights nearly coincide, the direction of the curve and its curvature are noise. The
# speed along the curve has to be this share of its largest value.
_SLOWEST = 0.02


def curve(rows: Sequence[Mapping[str, Any]], key: str, name: str) -> dict[str, Any]:
    """The points of the L-curve, and its corner.

    Args:
        rows: of runs that have ended.
        key: of the weight.
        name: of the regularisation term.

    Returns:
        `weights`, rising, and the numbers of their `runs`; `misfits`, the sums of all other terms; `terms`, the
        regularisation without its weight; `corner`: its `weight` and the nearest `run`, or None.
    """
    rows = sorted((row for row in rows if row.get(f"unweighted_{name}")), key=lambda row: row[key])
    weights = [float(row[key]) for row in rows]
    others = [
        sum(value for term, value in row.items() if term.startswith("term_") and term != f"term_{name}" and value)
        for row in rows
    ]
    terms = [float(row[f"unweighted_{name}"]) for row in rows]
    weight = corner(weights, others, terms)
    found: dict[str, Any] = {
        "term": name,
        "runs": [row["run"] for row in rows],
        "weights": weights,
        "misfits": others,
        "terms": terms,
        "corner": None,
    }
    if weight is not None:
        nearest = int(np.argmin(np.abs(np.log(weights) - np.log(weight))))
        found["corner"] = {"weight": weight, "run": rows[nearest]["run"]}
    return found


def corner(weights: Sequence[float], misfits: Sequence[float], terms: Sequence[float]) -> float | None:
    """The weight at the corner of an L-curve: where the curvature of the spline through the points, in logarithms, is
    largest; None where the curve is not convex towards the origin, or has fewer than four points.

    Args:
        weights: rising.
    """
    from scipy.interpolate import CubicSpline

    values = np.array([weights, misfits, terms], dtype=float)
    if values.shape[1] < 4 or not (np.isfinite(values).all() and (values > 0.0).all()):
        return None
    t, x, y = np.log(values)
    if (np.diff(t) <= 0.0).any():
        return None
    fine = np.linspace(t[0], t[-1], (len(t) - 1) * _POINTS + 1)
    along, across = CubicSpline(t, x), CubicSpline(t, y)
    dx, dy, ddx, ddy = along(fine, 1), across(fine, 1), along(fine, 2), across(fine, 2)
    speed = np.hypot(dx, dy)
    if not speed.max() > 0.0:
        return None
    moving = speed > _SLOWEST * speed.max()
    curvature = np.where(moving, (dx * ddy - ddx * dy) / np.where(moving, speed, 1.0) ** 3, -np.inf)
    best = int(np.argmax(curvature))
    # At an end of the range the curve may still bend more beyond it.
    if not curvature[best] > 0.0 or best in (0, len(fine) - 1):
        return None
    return float(np.exp(fine[best]))


def sentence(found: Mapping[str, Any]) -> str:
    """Where the corner is, for people."""
    if found["corner"] is None:
        return "no corner: the curvature of the L-curve has no largest value between these weights"
    return f"corner of the L-curve: weight {found['corner']['weight']:.3g}, nearest to run {found['corner']['run']}"
