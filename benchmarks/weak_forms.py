"""Weak forms of the equations of problem files in sympy, with their strong forms and their adjoints.

A form gives for each component i the pair f0_i, f1_i of int f0_i phi_i + f1_i . grad phi_i. Its strong form and its
adjoint follow by integration by parts; the factors of normal derivatives are returned beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp

AXES = X, Y, Z = sp.symbols("x y z", real=True)
T = sp.symbols("t", real=True)

Fields = tuple[Any, ...]
Form = Callable[[Fields, tuple[Fields, ...], Fields, Fields], tuple[Fields, tuple[Fields, ...]]]


@dataclass(frozen=True)
class Equation:
    """An equation of a problem file.

    Attributes:
        content: its keys in the file without source and boundary.
        form: (values, gradients, first and second time derivatives of all components) -> (f0, f1).
        components: the number of components; of flows the pressure is the last one.
        tracked: the number of the first components that the objective tracks and that have a source.
        controlled: the number of the first components on which the control acts.
        capacity: the factor of the first time derivative, for a first-order evolution.
        second_order: whether the equation has the second time derivative of the state.
        wavenumber: of Helmholtz's equation, for absorbing sides.
    """

    content: Mapping[str, Any]
    form: Form
    components: int = 1
    tracked: int = 1
    controlled: int = 1
    capacity: Any = 1
    second_order: bool = False
    wavenumber: Any = None

    @property
    def sourced(self) -> int:
        return self.tracked

    def strong(self, y: Fields, axes: Fields) -> tuple[Fields, tuple[Fields, ...]]:
        """(f0 - div f1, f1) at a state."""
        f0, f1 = self.form(*_derivatives(y, axes))
        return tuple(a - _divergence(b, axes) for a, b in zip(f0, f1, strict=True)), f1

    def adjoint(self, y: Fields, q: Fields, axes: Fields) -> tuple[Fields, tuple[Fields, ...]]:
        """The adjoint of the derivative of the form at y, applied to q, as (strong form, factor of the normal)."""
        slots, density, values = self._density(y, q, axes)
        value, slope, rate, second = slots
        strong, flux = [], []
        for k in range(self.components):

            def at(symbol: Any) -> Any:
                return sp.diff(density, symbol).subs(values)

            row = tuple(at(each) for each in slope[k])
            time = -sp.diff(at(rate[k]), T) + sp.diff(at(second[k]), T, 2)
            strong.append(at(value[k]) - _divergence(row, axes) + time)
            flux.append(row)
        return tuple(strong), tuple(flux)

    def of(self, y: Fields, q: Fields, axes: Fields) -> tuple[Fields, Fields]:
        """The second derivatives by each component of the state of q . f0, and those by its gradient."""
        slots, density, values = self._density(y, q, axes)
        by_value = tuple(sp.diff(density, each, 2).subs(values) for each in slots[0])
        by_slope = tuple(sp.diff(density, each, 2).subs(values) for row in slots[1] for each in row)
        return by_value, by_slope

    def boundary(self, condition: Any, y: Fields) -> Fields:
        """What the condition of a side adds to the flux of the state."""
        if condition == "absorbing":
            return self.wavenumber * y[1], -self.wavenumber * y[0]
        return tuple(condition * each for each in y)

    def boundary_adjoint(self, condition: Any, q: Fields) -> Fields:
        """The adjoint of `boundary`."""
        if condition == "absorbing":
            return -self.wavenumber * q[1], self.wavenumber * q[0]
        return tuple(condition * each for each in q)

    def _density(self, y: Fields, q: Fields, axes: Fields) -> tuple[Any, Any, dict[Any, Any]]:
        """The symbols for the state in the form, f0 . q + f1 . grad q with these symbols, and their values."""
        n = range(self.components)
        value, rate, second = (sp.symbols(f"{name}:{self.components}") for name in ("Y", "R", "S"))
        slope = tuple(sp.symbols(f"G{k}_:{len(axes)}") for k in n)
        f0, f1 = self.form(value, slope, rate, second)
        slopes = [tuple(sp.diff(each, axis) for axis in axes) for each in q]
        density = sum(f0[k] * q[k] + sum(a * b for a, b in zip(f1[k], slopes[k], strict=True)) for k in n)
        given = _derivatives(y, axes)
        values = {}
        for k in n:
            values |= {value[k]: given[0][k], rate[k]: given[2][k], second[k]: given[3][k]}
            values |= dict(zip(slope[k], given[1][k], strict=True))
        return (value, slope, rate, second), density, values


def _derivatives(y: Fields, axes: Fields) -> tuple[Fields, tuple[Fields, ...], Fields, Fields]:
    y = tuple(map(sp.sympify, y))
    slopes = tuple(tuple(sp.diff(each, axis) for axis in axes) for each in y)
    return y, slopes, tuple(sp.diff(each, T) for each in y), tuple(sp.diff(each, T, 2) for each in y)


def _divergence(row: Fields, axes: Fields) -> Any:
    return sum(sp.diff(each, axis) for each, axis in zip(row, axes, strict=True))


def diffusion(
    conductivity: Any = 1,
    reaction: Any = 0,
    velocity: Fields | None = None,
    capacity: Any = None,
    nonlinearity: Callable[[Any], Any] | None = None,
    **more: Any,
) -> Equation:
    """capacity u_t - div(K grad u) + velocity . grad u + reaction u + nonlinearity(u); K is a number or rows."""

    def form(y: Fields, slope: tuple[Fields, ...], rate: Fields, second: Fields) -> tuple[Fields, tuple[Fields, ...]]:
        (value,), (gradient,) = y, slope
        f0 = reaction * value + (rate[0] * capacity if capacity is not None else 0)
        f0 += sum(a * b for a, b in zip(velocity or (), gradient, strict=False))
        f0 += nonlinearity(value) if nonlinearity is not None else 0
        if isinstance(conductivity, tuple):
            return (f0,), (tuple(sum(a * b for a, b in zip(row, gradient, strict=True)) for row in conductivity),)
        return (f0,), (tuple(conductivity * each for each in gradient),)

    matrix = isinstance(conductivity, tuple)
    kind = "poisson" if capacity is None else "heat"
    content: dict[str, Any] = {
        "conductivity": [[str(each) for each in row] for row in conductivity] if matrix else str(conductivity)
    }
    if nonlinearity is not None:
        kind, content["nonlinearity"] = "semilinear", str(nonlinearity(sp.Symbol("u")))
    else:
        content["reaction"] = str(reaction)
    if velocity is not None:
        kind, content["velocity"] = "advection_diffusion", [str(each) for each in velocity]
    elif capacity is not None:
        content["capacity"] = str(capacity)
    return Equation({"kind": kind, **content, **more}, form, capacity=capacity or 1)


def wave(conductivity: Any = 1, damping: Any = 0) -> Equation:
    """u_tt - div(conductivity grad u) + damping u_t."""

    def form(y: Fields, slope: tuple[Fields, ...], rate: Fields, second: Fields) -> tuple[Fields, tuple[Fields, ...]]:
        return (second[0] + damping * rate[0],), (tuple(conductivity * each for each in slope[0]),)

    content = {"kind": "wave", "conductivity": str(conductivity), "damping": str(damping)}
    return Equation(content, form, second_order=True)


def helmholtz(wavenumber: Any, conductivity: Any = 1, controlled: int = 1) -> Equation:
    """-div(conductivity grad u) - wavenumber^2 u for real and imaginary part."""

    def form(y: Fields, slope: tuple[Fields, ...], rate: Fields, second: Fields) -> tuple[Fields, tuple[Fields, ...]]:
        f1 = tuple(tuple(conductivity * each for each in row) for row in slope)
        return tuple(-(wavenumber**2) * each for each in y), f1

    content = {"kind": "helmholtz", "wavenumber": str(wavenumber), "conductivity": str(conductivity)}
    return Equation(content, form, 2, 2, controlled, wavenumber=wavenumber)


def elasticity(dim: int, young: Any, ratio: Any, plane: str = "strain") -> Equation:
    """-div(2 mu eps + lambda tr(eps) I); in plane stress lambda is 2 mu lambda / (lambda + 2 mu)."""
    mu = young / (2 * (1 + ratio))
    lame = young * ratio / ((1 + ratio) * (1 - 2 * ratio))
    if plane == "stress":
        lame = 2 * mu * lame / (lame + 2 * mu)

    def form(y: Fields, slope: tuple[Fields, ...], rate: Fields, second: Fields) -> tuple[Fields, tuple[Fields, ...]]:
        trace = sum(slope[k][k] for k in range(dim))
        rows = (
            tuple(mu * (slope[i][j] + slope[j][i]) + (lame * trace if i == j else 0) for j in range(dim))
            for i in range(dim)
        )
        return (sp.Integer(0),) * dim, tuple(rows)

    content = {"kind": "elasticity", "young": str(young), "poisson_ratio": str(ratio)}
    if dim == 2:
        content["plane"] = plane
    return Equation(content, form, dim, dim, dim)


def stokes(dim: int = 2, viscosity: Any = 1, inertia: bool = False) -> Equation:
    """-viscosity lap u + grad p + (u . grad) u, div u = 0; the last term with `inertia`."""

    def form(y: Fields, slope: tuple[Fields, ...], rate: Fields, second: Fields) -> tuple[Fields, tuple[Fields, ...]]:
        rows = tuple(tuple(viscosity * slope[i][j] - (y[dim] if i == j else 0) for j in range(dim)) for i in range(dim))
        f0 = tuple(sum(y[j] * slope[i][j] for j in range(dim)) if inertia else sp.Integer(0) for i in range(dim))
        return (*f0, sum(slope[k][k] for k in range(dim))), (*rows, (sp.Integer(0),) * dim)

    content = {"kind": "navier_stokes" if inertia else "stokes", "viscosity": str(viscosity)}
    return Equation(content, form, dim + 1, dim, dim)
