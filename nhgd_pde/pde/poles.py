"""Poles of coefficients on the way from one control to another, such as the pole of k / (1 - k) at k = 1.

A step may jump over such a point, and the values at both ends of the step are finite. Poles are found from values of
the coefficients alone, without a solve. Samples on the way show where a coefficient changes its sign or is largest.
This interval is halved again and again, which shows whether the values grow without bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .equation import StateEquation

# Places of the samples, as shares of the way. They are denser near the start, because a step may be too long by orders
# of magnitude.
_SHARES = sorted({0.0, *(2.0**-k for k in range(20, 3, -1)), *(k / 8.0 for k in range(1, 9))})
# Number of halvings of an interval. The values of the last `_LAST` halvings show whether a function is bounded; after
# `_FIRST` halvings without growth it is.
_HALVINGS, _LAST, _FIRST = 36, 12, 8
# A value counts as not finite if it is larger than the largest sample by this factor.
_HUGE = 1e9
# Largest number of intervals that are examined for one coefficient.
_MOST_INTERVALS = 8

# Share of the way -> name of a coefficient -> its values (n,).
Path = Callable[[float], Mapping[Hashable, Tensor]]


def pole_between(equation: StateEquation, start: Tensor, end: Tensor) -> str:
    """The key of a coefficient of an equation with a pole between two controls (p,); empty where there is none."""

    def values(share: float) -> dict[Hashable, Tensor]:
        v = start + share * (end - start)
        rows = equation.rows.spread(v)
        found = [integral.guarded_values(rows) for integral in equation.guarded]
        found += [each.guarded_values(v) for each in (() if equation.data is None else equation.data.parameters)]
        return {(k, key): each for k, part in enumerate(found) for key, each in part.items()}

    found: Any = with_pole(values)
    return "" if found is None else found[1]


def with_pole(path: Path) -> Hashable | None:
    """The name of a coefficient with a pole on the way; None where there is none."""
    samples = [path(share) for share in _SHARES]
    return next((name for name in samples[0] if _pole(path, name, torch.stack([each[name] for each in samples]))), None)


def _pole(path: Path, name: Hashable, table: Tensor) -> bool:
    """Whether a coefficient has a pole on the way."""
    if not bool(torch.isfinite(table).all()):
        return True
    size = table.abs()
    usual = size.amax(0)
    turns = torch.zeros_like(size, dtype=torch.bool)
    turns[:-1] = table[:-1] * table[1:] < 0.0
    turns[1:-1] |= (size[1:-1] > size[:-2]) & (size[1:-1] > size[2:])
    for at in torch.nonzero(turns.any(1)).reshape(-1).tolist()[:_MOST_INTERVALS]:
        ends = _SHARES[max(at - 1, 0)], _SHARES[min(at + 1, len(table) - 1)]
        entry = int(torch.where(turns[at], size[at], -1.0).argmax())
        if _unbounded(partial(_value, path, name, entry), *ends, float(usual[entry])):
            return True
    return False


def _value(path: Path, name: Hashable, entry: int, share: float) -> float:
    return float(path(share)[name][entry])


def _unbounded(value: Callable[[float], float], left: float, right: float, usual: float) -> bool:
    """Whether a function is unbounded between two places, with the size `usual` of its largest value at the samples."""
    points = [left + (right - left) * k / 4.0 for k in range(5)]
    values = [value(t) for t in points]
    # The largest value is left out, because its place may be next to a pole by chance.
    seconds, spreads = [], []
    for halving in range(_HALVINGS):
        sizes = sorted(map(abs, values))
        if not (all(map(math.isfinite, values)) and sizes[-2] <= _HUGE * usual):
            return True
        seconds.append(sizes[-2])
        spreads.append(sizes[-2] - sizes[0])
        if halving == _FIRST and seconds[-1] <= seconds[0]:
            return False
        first = _next(values)
        points, values = points[first : first + 3], values[first : first + 3]
        middles = [0.5 * (a + b) for a, b in pairwise(points)]
        points = [points[0], middles[0], points[1], middles[1], points[2]]
        values = [values[0], value(middles[0]), values[1], value(middles[1]), values[2]]
    return seconds[-1] - seconds[-_LAST] > spreads[-_LAST]


def _next(values: list[float]) -> int:
    """The first of the three neighbours among five points that become the next interval.

    They lie around the largest change of sign, or around the largest value if no sign changes.
    """
    changes = [abs(b - a) if a * b < 0.0 else 0.0 for a, b in pairwise(values)]
    if max(changes) > 0.0:
        return min(changes.index(max(changes)), 2)
    sizes = [abs(each) for each in values]
    return min(max(sizes.index(max(sizes)) - 1, 0), 2)
