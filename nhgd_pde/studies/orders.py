"""Mesh refinement: observed orders of convergence, and the limit by extrapolation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# What is observed: columns of the table, and their names.
QUANTITIES = {"objective": "objective", "control_norm": "norm of the control"}
# Values that agree to this relative difference differ by the goal of the runs, or by rounding.
_EQUAL = 1e-13
# Range of orders that are looked for.
_LEAST, _MOST = 1e-3, 30.0


def observed_order(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The order p of three values J(h) = J + C h^p; None where they do not converge in this way.

    Args:
        sizes: (3,) h, falling.
    """
    (a, b, c), (u, v, w) = sizes, values
    first, second = u - v, v - w
    if not (a > b > c > 0.0) or abs(second) <= _EQUAL * max(abs(v), abs(w)) or not first / second > 0.0:
        return None
    wanted = first / second

    def ratio(p: float) -> float:
        return ((a / b) ** p - 1.0) / (1.0 - (c / b) ** p)

    if not ratio(_LEAST) < wanted < ratio(_MOST):
        return None
    from scipy.optimize import brentq

    return float(brentq(lambda p: ratio(p) - wanted, _LEAST, _MOST, xtol=1e-12))


def refined(rows: Sequence[Mapping[str, Any]], sizes: Sequence[float]) -> dict[str, Any]:
    """The orders of the quantities, and their limits.

    Args:
        rows: of runs that have ended.
        sizes: of a cell, or of a time step, in each of them.

    Returns:
        `sizes`, falling, and the numbers of their `runs`; for every quantity its `values`, an `order` for every value
        from the third one on, and the `limit` by the last three values, or None.
    """
    order = sorted(range(len(rows)), key=lambda k: -sizes[k])
    rows, sizes = [rows[k] for k in order], [sizes[k] for k in order]
    found: dict[str, Any] = {"runs": [row["run"] for row in rows], "sizes": list(sizes)}
    for name in QUANTITIES:
        values = [math.nan if row.get(name) is None else float(row[name]) for row in rows]
        if not all(map(math.isfinite, values)):
            continue
        orders = [observed_order(sizes[k - 2 : k + 1], values[k - 2 : k + 1]) for k in range(2, len(values))]
        found[name] = {"values": values, "orders": orders, "limit": _limit(sizes, values, orders)}
    return found


def _limit(sizes: Sequence[float], values: Sequence[float], orders: Sequence[float | None]) -> float | None:
    order = orders[-1] if orders else None
    if order is None:
        return None
    return values[-1] + (values[-1] - values[-2]) / ((sizes[-2] / sizes[-1]) ** order - 1.0)


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The orders, for people."""
    said = []
    for name in QUANTITIES:
        if name in found:
            orders = ", ".join("-" if each is None else f"{each:.2f}" for each in found[name]["orders"]) or "-"
            limit = found[name]["limit"]
            to = "" if limit is None else f"; limit {limit:.9g}"
            said.append(f"{QUANTITIES[name]}: orders {orders}{to}")
    return said
