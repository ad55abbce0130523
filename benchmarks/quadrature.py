"""Integrals of expressions over intervals, rectangles, boxes and disks, their sides, and times, to many digits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy as sp

# Gauss points in each panel along an axis, and the largest change of an integral with half the width of the panels,
# relative to that of the absolute value. The error of smooth functions is then at the level of rounding, as the order
# is 20; that of functions with kinks is below the change.
_POINTS, _RELATIVE = 10, 1e-7
# Most points of one quadrature.
_MOST = 20_000_000
_SIDES = {
    "left": (0, 0),
    "right": (0, 1),
    "bottom": (1, 0),
    "top": (1, 1),
    "front": (2, 0),
    "back": (2, 1),
}


@dataclass(frozen=True)
class Region:
    """A domain with its times, or a part of both.

    Attributes:
        mesh: the keys of the mesh in the problem file: its kind, size and origin.
        symbols: the symbols of the coordinates.
        time: the symbol of the time and the end, of an evolution.
        fixed: coordinates, or the time, that have one value.
    """

    mesh: Mapping[str, Any]
    symbols: tuple[Any, ...]
    time: tuple[Any, Any] | None = None
    fixed: tuple[tuple[Any, Any], ...] = ()

    @property
    def disk(self) -> bool:
        return bool(self.mesh["kind"] == "disk")

    @property
    def dim(self) -> int:
        return {"interval": 1, "rectangle": 2, "box": 3, "disk": 2}[self.mesh["kind"]]

    @property
    def axes(self) -> tuple[Any, ...]:
        return self.symbols[: self.dim]

    @property
    def size(self) -> list[Any]:
        given = self.mesh.get("size", 1)
        return list(given) if isinstance(given, list) else [given] * self.dim

    @property
    def origin(self) -> list[Any]:
        given = self.mesh.get("origin", 0)
        return list(given) if isinstance(given, list) else [given] * self.dim

    @property
    def sides(self) -> list[str]:
        return ["all"] if self.disk else [side for side, (axis, _) in _SIDES.items() if axis < self.dim]

    def normal(self, side: str) -> tuple[Any, ...]:
        """The outer normal."""
        if self.disk:
            return tuple(
                (x - sp.nsimplify(o)) / sp.nsimplify(self.size[0]) for x, o in zip(self.axes, self.origin, strict=True)
            )
        axis, end = _SIDES[side]
        return tuple(sp.Integer((2 * end - 1) * (k == axis)) for k in range(self.dim))

    def place(self, side: str) -> dict[Any, Any]:
        """What coordinates are on a side."""
        if self.disk:
            return {}
        axis, end = _SIDES[side]
        return {self.axes[axis]: sp.nsimplify(self.origin[axis]) + end * sp.nsimplify(self.size[axis])}

    def side(self, side: str) -> Region:
        fixed = {sp.Symbol("rim"): 1} if self.disk else self.place(side)
        return replace(self, fixed=(*self.fixed, *fixed.items()))

    def at(self, time: Any) -> Region:
        """The region at one time."""
        assert self.time is not None
        return replace(self, time=None, fixed=(*self.fixed, (self.time[0], time)))


def _points(region: Region, panels: int, points: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Values of coordinates and time by name, and weights, all broadcast against each other."""
    node, share = np.polynomial.legendre.leggauss(points)
    left = np.arange(panels)[:, None] / panels
    unit = (left + 0.5 * (node + 1.0) / panels).reshape(-1)
    weight = np.tile(0.5 * share / panels, panels)
    fixed = {str(symbol): float(value) for symbol, value in region.fixed}
    ranges: list[tuple[str, float, float]] = []
    if region.disk:
        ranges += [("angle", 0.0, 2.0 * np.pi)] + ([] if "rim" in fixed else [("radius", 0.0, 1.0)])
    else:
        parts = zip(region.axes, region.origin, region.size, strict=True)
        ranges += [(str(x), float(o), float(s)) for x, o, s in parts if str(x) not in fixed]
    if region.time is not None:
        ranges.append((str(region.time[0]), 0.0, float(region.time[1])))
    values: dict[str, Any] = {name: np.float64(value) for name, value in fixed.items()}
    weights = np.ones((1,) * len(ranges))
    for k, (name, start, length) in enumerate(ranges):
        shape = [1] * len(ranges)
        shape[k] = -1
        values[name] = (start + length * unit).reshape(shape)
        weights = weights * (length * weight).reshape(shape)
    if region.disk:
        radius, size = values.get("radius", np.float64(1.0)), float(region.size[0])
        values["x"] = float(region.origin[0]) + size * radius * np.cos(values["angle"])
        values["y"] = float(region.origin[1]) + size * radius * np.sin(values["angle"])
        weights = weights * (size if "rim" in fixed else size**2 * radius)
    return values, weights


def _evaluated(expr: Any, values: Mapping[str, Any]) -> np.ndarray:
    expr = sp.sympify(expr)
    symbols = sorted(expr.free_symbols, key=str)
    with np.errstate(under="ignore"):
        return np.asarray(sp.lambdify(symbols, expr, "numpy")(*(values[str(each)] for each in symbols)), dtype=float)


def integral(expr: Any, region: Region) -> float:
    """The integral over the region, by Gauss's rule on more and more panels until it does not change.

    Raises:
        ArithmeticError: with as many points as are allowed it still changes.
    """
    before = None
    for panels in itertools.accumulate(itertools.repeat(2), lambda a, b: a * b, initial=3):
        values, weights = _points(region, panels, _POINTS)
        if weights.size > _MOST:
            raise ArithmeticError(f"the integral of {expr} changes by more than {_RELATIVE:g}")
        terms = _evaluated(expr, values) * weights
        found, scale = float(terms.sum()), float(np.abs(terms).sum())
        if before is not None and abs(found - before) <= _RELATIVE * scale:
            return found
        before = found
    raise AssertionError


def sampled(expr: Any, region: Region) -> np.ndarray:
    """Values at some points of the region."""
    return np.atleast_1d(_evaluated(expr, _points(region, 3, 4)[0]))
