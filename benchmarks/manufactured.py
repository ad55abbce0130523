"""Optimal control problems with a chosen solution: the data of the problem file follow from state and adjoint variable.

A state y, an adjoint variable q and, if wanted, a control are chosen as expressions. With the weak form of the equation

    int f0(y, grad y) phi + f1(y, grad y) . grad phi + boundary terms = int (source + gain u) phi + boundary loads

and the objective w/2 int |y - y_d|^2 + alpha/2 int |u - u_d|^2 + int_boundary l y, the optimality system determines the
rest: the source and the boundary data follow from y and u, the target from w (y - y_d) = A(q), where A is the adjoint
of the derivative of the equation at y, the weight l from the flux of q through the boundary, and u is the projection of
u_d - gain q / alpha onto its bounds. A problem with a linear equation is convex, so that the chosen triple is its one
optimum; with a nonlinear equation it is one where the second derivative of the Lagrangian is positive, see `curvature`.
The objective J* of the triple is integrated by a quadrature of the chosen functions, see `quadrature`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from sympy.printing.str import StrPrinter

from benchmarks.quadrature import Region, integral, sampled
from benchmarks.weak_forms import AXES, Equation, T

Fields = tuple[Any, ...]


class _Text(StrPrinter):
    """Prints an expression in the language of problem files."""

    def _print_Exp1(self, expr: Any) -> str:
        return "e"

    def _print_Max(self, expr: Any) -> str:
        return self._pairs("maximum", expr.args)

    def _print_Min(self, expr: Any) -> str:
        return self._pairs("minimum", expr.args)

    def _pairs(self, name: str, args: tuple[Any, ...]) -> str:
        first, *rest = map(self._print, args)
        for each in rest:
            first = f"{name}({first}, {each})"
        return first

    def _print_Abs(self, expr: Any) -> str:
        return f"abs({self._print(expr.args[0])})"


def text(expr: Any) -> str:
    """An expression of sympy as one of a problem file."""
    return str(_Text({"full_prec": False}).doprint(sp.sympify(expr)))


def texts(fields: Fields) -> str | list[str]:
    return text(fields[0]) if len(fields) == 1 else [text(each) for each in fields]


@dataclass(frozen=True)
class Control:
    """Where and at which cost the control acts.

    Attributes:
        kind: source, neumann, robin, dirichlet, initial, or parameter, a number times `gain` in the source.
        alpha: weight of its squares.
        on: the side of the boundary.
        gain: its factor in the equation.
        space: P1, P0 or constant; a constant is one number, for all times.
        bounds: lower and upper bound, numbers.
        wanted: the control without bounds, one expression a component, from which a reference u_d is derived; else u_d
            is 0.
        l1: weight of the absolute values.
        h1: of a source that is wanted, with no flux through the boundary: weight of the squares of its gradient.
    """

    kind: str = "source"
    alpha: Any = 1
    on: str | None = None
    gain: Any = 1
    space: str = "P1"
    bounds: tuple[Any, Any] | None = None
    wanted: Fields | None = None
    l1: Any = 0
    h1: Any = 0


@dataclass(frozen=True, eq=False)
class Manufactured:
    """A problem with a chosen optimum.

    Attributes:
        mesh: the keys of the mesh in the problem file, without its cells.
        equation: the equation.
        y: the state, one expression a component.
        q: the adjoint variable; zero where the state has Dirichlet values, and at the end where no `final` is given.
        control: the control.
        sides: the condition on each side: `dirichlet`, `absorbing` or the coefficient of a Robin condition; on others
            the flux is given.
        weight: w, the weight of the tracking term.
        final: the weight of a second tracking term at the end of an evolution.
        boundary_weight: on boundaries the weight of a tracking term, in place of a linear one; None: linear.
        element: P1 or P2.
        end, scheme: of an evolution.
        steps: number of cells along an axis -> number of steps in time.
        more: further keys of the problem file.
    """

    mesh: Mapping[str, Any]
    equation: Equation
    y: Fields
    q: Fields
    control: Control = Control()
    sides: Mapping[str, Any] = field(default_factory=dict)
    weight: Any = 1
    final: Any = None
    boundary_weight: Any = None
    element: str = "P1"
    end: Any = None
    scheme: str = "implicit_euler"
    steps: Callable[[int], int] = int
    more: Mapping[str, Any] = field(default_factory=dict)

    def content(self, n: int) -> dict[str, Any]:
        """The problem file with n times `mesh.cells` cells, by default n along each axis; of a disk log2 n halvings."""
        mesh = dict(self.mesh)
        share = mesh.pop("cells", [1] * self.region.dim)
        if mesh["kind"] == "disk":
            mesh["refine"] = round(np.log2(n))
        else:
            mesh["cells"] = [n * each for each in share]
        found = {**self._file, "mesh": mesh}
        return {**found, "time": {**found["time"], "steps": self.steps(n)}} if self.end is not None else found

    @cached_property
    def optimum(self) -> float:
        """J*, by quadrature of the chosen functions."""
        cost, region = self.control, self.region
        inside = self.adjoint_source
        found = integral(sum(each**2 for each in inside) / (2 * self.weight), region)
        density = sum((u - v) ** 2 for u, v in zip(self.u, self.reference, strict=True)) * cost.alpha / 2
        density += cost.l1 * sum(map(sp.Abs, self.u))
        density += cost.h1 * sum(sp.diff(u, axis) ** 2 for u in self.u for axis in region.axes) / 2
        found += float(density) if cost.kind == "parameter" else integral(density, self._place)
        for side in self._open:
            load = self.adjoint_load(side)
            if any(load):
                squares = self.boundary_weight is not None
                cost_there = sum(a**2 for a in load) / (2 * self.boundary_weight) if squares else _dot(load, self.y)
                found += integral(cost_there, region.side(side))
        if self.final is not None:
            found += integral(sum(each**2 for each in self._at_end) / (2 * self.final), region.at(self.end))
        return found

    @property
    def curvature(self) -> float:
        """The smallest value of w - q . f0''(y) at sampled points, relative to w; at least 0 is enough for an optimum.

        It is for equations whose f1 is linear.
        """
        f0, _ = self.equation.of(self.y, self.q, self.region.axes)
        return float(min(sampled(1 - each / self.weight, self.region).min() for each in f0))

    # The optimality system

    @cached_property
    def region(self) -> Region:
        return Region(self.mesh, AXES, None if self.end is None else (T, self.end))

    @cached_property
    def adjoint_source(self) -> Fields:
        """A(q) for the tracked components of the state."""
        return tuple(sp.factor_terms(each) for each in self._adjoint[0][: self.equation.tracked])

    def adjoint_load(self, side: str) -> Fields:
        """The weight l of the state on a side, from the flux of q."""
        condition = self.sides.get(side, 0)
        normal = self.region.normal(side)
        flux = [_dot(row, normal) for row in self._adjoint[1]]
        added = self.equation.boundary_adjoint(condition, self.q)
        values = (self._on(side, a + b) for a, b in zip(flux, added, strict=True))
        return tuple(sp.simplify(each) for each in values)

    @cached_property
    def u(self) -> Fields:
        """The optimal control."""
        control, cov = self.control, self._covector
        if control.space == "constant" or control.kind == "parameter":
            measure = 1 if control.kind == "parameter" else integral(sp.Integer(1), self._place)
            free = tuple(-sp.Float(integral(each, self._place) / measure, 17) / control.alpha for each in cov)
        elif control.wanted is not None:
            free = control.wanted
        else:
            free = tuple(-each / control.alpha for each in cov)
        if control.l1:
            threshold = control.l1 / control.alpha
            free = tuple(sp.Max(each - threshold, 0) + sp.Min(each + threshold, 0) for each in free)
        if control.bounds is not None:
            low, high = control.bounds
            free = tuple(sp.Max(sp.Min(each, high), low) for each in free)
        return free

    @cached_property
    def reference(self) -> Fields:
        wanted, alpha, axes = self.control.wanted, self.control.alpha, self.region.axes
        if wanted is None:
            return (sp.Integer(0),) * len(self._covector)
        rough = (self.control.h1 * sum(sp.diff(each, axis, 2) for axis in axes) for each in wanted)
        return tuple(v + (cov - h) / alpha for v, cov, h in zip(wanted, self._covector, rough, strict=True))

    @cached_property
    def _covector(self) -> Fields:
        """The derivative of the Lagrangian by the control without its costs, one expression a component."""
        kind, gain, side = self.control.kind, self.control.gain, self.control.on
        first = self.q[: self.equation.controlled]
        if kind in ("source", "parameter", "neumann"):
            found = tuple(gain * each for each in first)
        elif kind == "robin":
            found = tuple(gain * self.sides[side] * each for each in first)
        elif kind == "initial":
            return tuple((self.equation.capacity * each).subs(T, 0) for each in first)
        else:
            normal = self.region.normal(side)
            found = tuple(-gain * _dot(row, normal) for row in self._adjoint[1][: self.equation.controlled])
        return tuple(self._on(side, each) for each in found)

    @property
    def _place(self) -> Region:
        """Where the control has values."""
        if self.control.kind == "initial":
            return self.region.at(0)
        return self.region if self.control.on is None else self.region.side(self.control.on)

    @cached_property
    def _adjoint(self) -> tuple[Fields, tuple[Fields, ...]]:
        return self.equation.adjoint(self.y, self.q, self.region.axes)

    @property
    def _at_end(self) -> Fields:
        found = tuple((self.equation.capacity * each).subs(T, self.end) for each in self.q)
        return found[: self.equation.tracked]

    @property
    def _open(self) -> list[str]:
        """The sides without Dirichlet values."""
        return [side for side in self.region.sides if self.sides.get(side) != "dirichlet"]

    def _on(self, side: str | None, expr: Any) -> Any:
        return expr if side is None else sp.sympify(expr).subs(self.region.place(side))

    # The problem file

    @cached_property
    def _file(self) -> dict[str, Any]:
        self._check()
        pde = {**self.equation.content, **self._sources, "boundary": self._boundary}
        found = {"name": "manufactured", "element": self.element, "pde": pde, "control": self._control}
        found["objective"] = self._objective
        if self.end is not None:
            start = [text(each.subs(T, 0)) for each in self._start]
            kept = start[0] if len(start) == 1 else start
            found["time"] = {"end": float(self.end), "scheme": self.scheme, "initial": kept}
        return {**found, "outer": {"rtol": 1e-9}, **self.more}

    @property
    def _start(self) -> Fields:
        if self.control.kind == "initial":
            return tuple(a - b for a, b in zip(self.y, self.u, strict=True))
        return (self.y[0], sp.diff(self.y[0], T)) if self.equation.second_order else self.y

    @property
    def _sources(self) -> dict[str, Any]:
        values = list(self.equation.strong(self.y, self.region.axes)[0])
        if self.control.kind in ("source", "parameter"):
            for k, each in enumerate(self.u):
                values[k] -= self.control.gain * each
        values, rest = values[: self.equation.sourced], values[self.equation.sourced :]
        assert all(sp.simplify(each) == 0 for each in rest), "the state does not fulfil its constraint"
        if self.control.kind == "parameter":
            values[0] += sp.Symbol("number") * self.control.gain
        return {"source": texts(_simple(values))}

    @property
    def _boundary(self) -> dict[str, Any]:
        found = {}
        f1 = self.equation.strong(self.y, self.region.axes)[1]
        size = self.equation.sourced
        for side in self.region.sides:
            condition, normal = self.sides.get(side), self.region.normal(side)
            mine = self.control.on == side
            u = tuple(self.control.gain * each for each in self.u) if mine else (0,) * size
            value = tuple(self._on(side, each) for each in self.y[:size])
            flux = tuple(self._on(side, _dot(row, normal)) for row in f1[:size])
            if condition == "dirichlet":
                u = u if self.control.kind == "dirichlet" else (0,) * size
                found[side] = {"dirichlet": texts(_simple(a - b for a, b in zip(value, u, strict=True)))}
            elif condition == "absorbing":
                rest = [a + b for a, b in zip(flux, self.equation.boundary(condition, value), strict=True)]
                assert not any(sp.simplify(each) for each in rest), "the state does not leave through the side"
                found[side] = {"absorbing": True}
            elif condition is not None:
                outside = _simple(a + b / condition - c for a, b, c in zip(value, flux, u, strict=True))
                found[side] = {"robin": {"coefficient": text(condition), "value": texts(outside)}}
            else:
                load = _simple(a - b for a, b in zip(flux, u, strict=True))
                if any(load):
                    found[side] = {"neumann": texts(load)}
        return found

    @property
    def _control(self) -> dict[str, Any]:
        control = self.control
        found: dict[str, Any] = {"kind": control.kind, "space": control.space}
        if control.kind == "parameter":
            found = {"kind": "parameter", "name": "number"}
        elif control.gain != 1:
            found["gain"] = text(control.gain)
        if control.on is not None:
            found["on"] = control.on
        if control.bounds is not None:
            found["bounds"] = [float(each) for each in control.bounds]
        if self.equation.content["kind"] == "helmholtz" and self.equation.controlled == 2:
            found["complex"] = True
        return found

    @property
    def _objective(self) -> list[dict[str, Any]]:
        target = _simple(y - a / self.weight for y, a in zip(self.y, self.adjoint_source, strict=False))
        found: list[dict[str, Any]] = [{"kind": "tracking", "target": texts(target), "weight": float(self.weight)}]
        if self.final is not None:
            end = (y.subs(T, self.end) - a / self.final for y, a in zip(self.y, self._at_end, strict=False))
            found.append(
                {"kind": "tracking", "target": texts(_simple(end)), "weight": float(self.final), "time": "final"}
            )
        for side in self._open:
            load = self.adjoint_load(side)
            assert not any(load[self.equation.sourced :])
            load = load[: self.equation.sourced]
            if any(load) and self.boundary_weight is None:
                found.append({"kind": "linear_state", "weight": texts(load), "on": side})
            elif any(load):
                wanted = _simple(
                    self._on(side, y) - a / self.boundary_weight for y, a in zip(self.y, load, strict=False)
                )
                found.append(
                    {"kind": "tracking", "target": texts(wanted), "weight": float(self.boundary_weight), "on": side}
                )
        found.append(
            {"kind": "regularisation", "weight": float(self.control.alpha), "reference": texts(self.reference)}
        )
        for norm, weight in (("l1", self.control.l1), ("h1", self.control.h1)):
            if weight:
                found.append({"kind": "regularisation", "norm": norm, "weight": float(weight)})
        return found

    def _check(self) -> None:
        """The adjoint variable is zero on Dirichlet sides, and at the end of an evolution without a term there."""
        for side in set(self.region.sides) - set(self._open):
            for each in self.q[: self.equation.sourced]:
                assert np.abs(sampled(self._on(side, each), self.region.side(side))).max() < 1e-12
        if self.end is not None and self.final is None:
            ends = [each.subs(T, self.end) for each in self.q]
            if self.equation.second_order:
                ends += [sp.diff(each, T).subs(T, self.end) for each in self.q]
            assert not any(sp.simplify(each) for each in ends)


def _dot(a: Fields, b: Fields) -> Any:
    return sum((x * y for x, y in zip(a, b, strict=False)), sp.Integer(0))


def _simple(values: Any) -> Fields:
    return tuple(sp.factor_terms(sp.sympify(each)) for each in values)
