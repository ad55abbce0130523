"""Problems whose optimum is known, by manufactured solutions: steady ones in the plane."""

from __future__ import annotations

from typing import Any

import sympy as sp

from benchmarks.closed_forms import COARSE, EDGES, FOUR, QUADRILATERALS, SQUARE, Forms, R, cos, exp, fixed, pi, sin
from benchmarks.manufactured import Control, Manufactured
from benchmarks.weak_forms import X, Y, diffusion, elasticity, helmholtz, stokes

FORMS = Forms()
form = FORMS.enter


@form(FOUR)
def anisotropic() -> Manufactured:
    matrix = ((2, R(1, 2)), (R(1, 2), 1 + X * Y))
    return Manufactured(
        SQUARE,
        diffusion(matrix),
        (sin(pi * X) * exp(Y),),
        (X * (1 - X) * sin(pi * Y) / 5,),
        Control(alpha=R(1, 20)),
        EDGES,
    )


@form(FOUR)
def robin_side() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(1),
        (X**2 + cos(2 * Y),),
        (X * cos(pi * Y) / 10,),
        Control("robin", R(1, 10), "right"),
        {"left": "dirichlet", "right": 2},
    )


@form(FOUR)
def bounded_p0() -> Manufactured:
    return Manufactured(
        QUADRILATERALS,
        diffusion(1, velocity=(1, Y)),
        (cos(X + 2 * Y),),
        (sin(pi * X) * sin(2 * pi * Y) / 10,),
        Control(alpha=R(1, 20), space="P0", bounds=(R(-3, 2), 1)),
        EDGES,
    )


@form(FOUR)
def flux_with_bounds() -> Manufactured:
    return Manufactured(
        QUADRILATERALS,
        diffusion(1, 1),
        (cos(X) * exp(Y),),
        (cos(2 * pi * X) * Y**2 / 10,),
        Control("neumann", R(1, 10), "top", bounds=(R(-1, 2), R(7, 10))),
        fixed("bottom"),
    )


@form(FOUR)
def dirichlet_side() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(1 + X),
        (cos(2 * X + Y),),
        (X * (1 - X) ** 2 * Y * (1 - Y) / 2,),
        Control("dirichlet", R(1, 2), "left"),
        EDGES,
    )


@form(COARSE)
def dirichlet_side_p2() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(1),
        (cos(2 * X + Y),),
        (sin(pi * X) * sin(pi * Y) / 5,),
        Control("dirichlet", R(1, 2), "top", gain=2, bounds=(-1, 2)),
        EDGES,
        element="P2",
    )


@form(FOUR)
def number_on_a_side() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(1),
        (X**2 * cos(Y),),
        (X * (2 - X) * cos(pi * Y) ** 2 / 4,),
        Control("neumann", R(1, 2), "right", space="constant"),
        fixed("left"),
    )


@form(FOUR)
def reaction_layers() -> Manufactured:
    width = R(1, 20)
    return Manufactured(
        QUADRILATERALS,
        diffusion(width**2, 1),
        (exp(-X / width) + exp(-Y / width),),
        (sin(pi * X) * sin(pi * Y) / 10,),
        Control(alpha=R(1, 10)),
        EDGES,
    )


@form(FOUR)
def advection_layer() -> Manufactured:
    width = R(1, 40)
    layer = (exp((X - 1) / width) - exp(-1 / width)) / (1 - exp(-1 / width))
    return Manufactured(
        SQUARE,
        diffusion(width, velocity=(1, 0)),
        ((X - layer) * sin(pi * Y),),
        (X * (1 - X) * sin(pi * Y) / 2,),
        Control(alpha=R(1, 10)),
        EDGES,
    )


@form(COARSE)
def rotation_p2() -> Manufactured:
    return Manufactured(
        {"kind": "rectangle", "origin": [-1, -1], "size": [2, 2]},
        diffusion(R(1, 5), 1, (-Y, X)),
        (cos(X) * sin(2 * Y),),
        ((1 - X**2) * (1 - Y**2) / 4,),
        Control(alpha=R(1, 10)),
        EDGES,
        element="P2",
    )


@form(FOUR)
def outflow() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(R(1, 10), 0, (1 + Y, R(1, 2))),
        (sin(2 * X + Y),),
        (X * Y * exp(-X) / 4,),
        Control(alpha=R(1, 10)),
        fixed("left", "bottom"),
        boundary_weight=R(1, 2),
    )


@form(COARSE)
def reference_p2() -> Manufactured:
    return Manufactured(
        QUADRILATERALS,
        diffusion(1, 1),
        (cos(2 * X) * Y,),
        (sin(pi * X) * sin(2 * pi * Y) / 10,),
        Control(alpha=R(1, 4), wanted=(exp(X - Y),)),
        EDGES,
        element="P2",
    )


@form(COARSE)
def cells_p2() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(1),
        (sin(3 * X) * cos(Y),),
        (sin(pi * X) * sin(pi * Y) / 10,),
        Control(alpha=R(1, 10), space="P0"),
        EDGES,
        element="P2",
    )


@form(FOUR)
def huge_units() -> Manufactured:
    """Lengths of 1e3, an objective of the order 1e12."""
    x, y = X / 1000, Y / 500
    return Manufactured(
        {"kind": "rectangle", "size": [1000, 500], "origin": [2000, 0]},
        diffusion(10),
        (100 * sin(x) * exp(y),),
        (10**9 * sin(pi * x) * sin(pi * y),),
        Control(alpha=10**11),
        EDGES,
        weight=100,
    )


@form(FOUR)
def oscillating_target() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(1),
        (X * (1 - Y),),
        (sin(6 * pi * X) * sin(5 * pi * Y) / 500,),
        Control(alpha=R(1, 1000)),
        EDGES,
    )


@form(COARSE)
def wave_number() -> Manufactured:
    k = 2 * pi
    return Manufactured(
        SQUARE,
        helmholtz(k),
        (cos(k * X), sin(k * X)),
        (sin(pi * X / 2) * cos(k * X) * cos(pi * Y) / 50, -sin(pi * X / 2) * sin(k * X) * cos(pi * Y) / 50),
        Control(alpha=R(1, 20)),
        {"left": "dirichlet", "right": "absorbing"},
        element="P2",
    )


@form(FOUR)
def complex_control() -> Manufactured:
    return Manufactured(
        QUADRILATERALS,
        helmholtz(3, 1 + X / 2, 2),
        (cos(2 * X) * Y, sin(X + Y)),
        (sin(pi * X) * sin(pi * Y) / 20, X * (1 - X) * sin(2 * pi * Y) / 10),
        Control(alpha=R(1, 20)),
        EDGES,
    )


@form(FOUR)
def plane_stress() -> Manufactured:
    return Manufactured(
        QUADRILATERALS,
        elasticity(2, 3, R(3, 10), "stress"),
        (sin(X) * Y, X**2 * cos(Y)),
        (X * cos(Y) / 20, sin(pi * X) * Y / 20),
        Control(alpha=R(1, 20)),
        fixed("left"),
    )


@form(COARSE)
def nearly_incompressible() -> Manufactured:
    return Manufactured(
        SQUARE,
        elasticity(2, 1, R(9, 20)),
        (cos(X + Y), sin(2 * X) * Y),
        (X * (2 - X) * cos(Y) / 20, X * Y / 20),
        Control("neumann", R(1, 20), "right"),
        fixed("left"),
        element="P2",
    )


def swirl(stream: Any) -> tuple[Any, Any]:
    """The velocity of a stream function, whose divergence is zero."""
    return sp.diff(stream, Y), -sp.diff(stream, X)


@form(COARSE)
def stokes_outflow() -> Manufactured:
    return Manufactured(
        SQUARE,
        stokes(),
        (*swirl(X**2 * sin(Y)), cos(X) * Y),
        (*swirl(X**2 * sin(pi * Y) ** 2 / 50), X * Y / 20),
        Control(alpha=R(1, 20)),
        fixed("left", "bottom", "top"),
        element="P2",
    )


@form(COARSE)
def navier_stokes_outflow() -> Manufactured:
    bump = (X * (1 - X) * Y * (1 - Y)) ** 2
    return Manufactured(
        SQUARE,
        stokes(2, R(1, 10), True),
        (*swirl(sin(X) * cos(Y)), X * Y - R(1, 4)),
        (*swirl(bump), sp.Integer(0)),
        Control(alpha=R(1, 10)),
        fixed("left", "bottom", "top"),
        element="P2",
    )


@form((4, 8, 16, 32))
def disk_fixed() -> Manufactured:
    inside = 1 - X**2 - Y**2
    return Manufactured(
        {"kind": "disk"}, diffusion(1), (exp(X),), (inside * (1 + X) / 10,), Control(alpha=R(1, 10)), fixed("all")
    )


@form((4, 8, 16, 32))
def disk_flux() -> Manufactured:
    return Manufactured(
        {"kind": "disk", "size": 2},
        diffusion(1, 1),
        (X * Y + X,),
        (cos(X) * Y / 4,),
        Control("neumann", R(1, 2), "all"),
    )


@form(FOUR)
def cubic() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(1, nonlinearity=lambda u: u**3),
        (1 + sin(pi * X) * cos(Y),),
        (sin(pi * X) * sin(pi * Y) / 20,),
        Control(alpha=R(1, 20)),
        EDGES,
    )


@form(FOUR)
def exponential() -> Manufactured:
    return Manufactured(
        QUADRILATERALS,
        diffusion(1, nonlinearity=lambda u: exp(u)),
        (X * cos(2 * Y),),
        (X * (2 - X) * cos(pi * Y) / 20,),
        Control("neumann", R(1, 20), "right", bounds=(-R(1, 2), 2)),
        fixed("left"),
    )
