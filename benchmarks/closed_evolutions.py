"""Problems whose optimum is known, by manufactured solutions: evolutions."""

from __future__ import annotations

from benchmarks.closed_forms import (
    COARSE,
    EDGES,
    ENDS,
    FOUR,
    INTERVAL,
    QUADRILATERALS,
    SQUARE,
    Forms,
    R,
    cos,
    exp,
    fixed,
    pi,
    sin,
)
from benchmarks.manufactured import Control, Manufactured
from benchmarks.weak_forms import T, X, Y, Z, diffusion, wave

FORMS = Forms()
form = FORMS.enter

CN = "crank_nicolson"


@form(FOUR)
def heat_euler() -> Manufactured:
    return Manufactured(
        INTERVAL,
        diffusion(1, 1, capacity=2),
        (exp(-T) * cos(2 * X),),
        ((1 - T) * X * (2 - X) / 10,),
        Control(alpha=R(1, 10)),
        fixed("left"),
        end=1,
    )


@form(FOUR)
def heat_end_target() -> Manufactured:
    return Manufactured(
        INTERVAL,
        diffusion(1 + X, capacity=1 + X),
        (sin(T + X),),
        (cos(T) * sin(pi * X) / 10,),
        Control(alpha=R(1, 10)),
        ENDS,
        final=2,
        end=1,
        scheme=CN,
    )


@form(FOUR)
def heat_start() -> Manufactured:
    """The control is the initial temperature."""
    return Manufactured(
        INTERVAL,
        diffusion(R(1, 2), capacity=1),
        ((1 + T) * sin(2 * X),),
        (exp(-T) * sin(pi * X) / 5,),
        Control("initial", R(1, 2)),
        ENDS,
        final=1,
        end=R(1, 2),
    )


@form(COARSE)
def heat_flux_bounds() -> Manufactured:
    return Manufactured(
        QUADRILATERALS,
        diffusion(1, capacity=1),
        (cos(X) * exp(-T) * Y,),
        ((1 - T) * cos(pi * Y) * X**2 / 10,),
        Control("neumann", R(1, 10), "right", bounds=(R(-1, 2), R(3, 5))),
        fixed("left"),
        end=1,
        scheme=CN,
    )


@form(COARSE)
def heat_advected() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(R(1, 10), velocity=(1, -X), capacity=1),
        (sin(X + 2 * Y - T),),
        ((1 - T) * sin(pi * X) * sin(pi * Y) / 10,),
        Control(alpha=R(1, 10)),
        EDGES,
        end=1,
        scheme=CN,
    )


@form(COARSE)
def heat_p2() -> Manufactured:
    return Manufactured(
        SQUARE,
        diffusion(1, capacity=1),
        (cos(T) * cos(2 * X + Y),),
        ((1 - T) ** 2 * sin(pi * X) * Y * (1 - Y) / 4,),
        Control(alpha=R(1, 10), space="P0"),
        EDGES,
        element="P2",
        end=1,
        scheme=CN,
    )


@form(FOUR)
def heat_number() -> Manufactured:
    """The control is one number for all times, with a source that the expressions give its shape."""
    return Manufactured(
        INTERVAL,
        diffusion(1, capacity=1),
        (T * sin(2 * X),),
        ((1 - T) * sin(pi * X) / 4,),
        Control(alpha=R(1, 10), space="constant", gain=1 + X),
        ENDS,
        end=1,
        scheme=CN,
    )


@form(FOUR)
def heat_robin() -> Manufactured:
    return Manufactured(
        INTERVAL,
        diffusion(1, capacity=1),
        (exp(X - T),),
        ((1 - T) * (1 + X) / 10,),
        Control("robin", R(1, 2), "right"),
        {"left": 3, "right": 2},
        end=1,
    )


@form(FOUR)
def heat_fast() -> Manufactured:
    """Ten oscillations in time."""
    return Manufactured(
        INTERVAL,
        diffusion(1, capacity=1),
        (sin(20 * pi * T) * X,),
        ((1 - T) * sin(pi * X) / 10,),
        Control(alpha=R(1, 10)),
        ENDS,
        end=1,
        scheme=CN,
        steps=lambda n: 4 * n,
    )


@form(FOUR)
def heat_boundary_values() -> Manufactured:
    return Manufactured(
        INTERVAL,
        diffusion(1, capacity=1),
        (exp(-T) * cos(X),),
        ((1 - T) ** 2 * sin(pi * X) / 5,),
        Control("dirichlet", R(1, 2), "right"),
        ENDS,
        end=1,
    )


@form((2, 4, 8, 16))
def heat_cube() -> Manufactured:
    return Manufactured(
        {"kind": "box", "cell": "hexahedron"},
        diffusion(1, capacity=1),
        ((1 + T) * cos(X) * Y * Z,),
        ((1 - T) * X * (2 - X) * sin(pi * Y) * cos(Z) / 10,),
        Control(alpha=R(1, 10)),
        fixed("left", "bottom", "top"),
        end=1,
        scheme=CN,
    )


@form(FOUR)
def damped_string() -> Manufactured:
    return Manufactured(
        INTERVAL,
        wave(1 + X / 2, R(1, 2)),
        (cos(2 * T) * sin(2 * X),),
        ((1 - T) ** 2 * X * (2 - X) / 10,),
        Control(alpha=R(1, 10)),
        fixed("left"),
        end=1,
        scheme=CN,
        steps=lambda n: 2 * n,
    )


@form(COARSE)
def membrane_flux() -> Manufactured:
    return Manufactured(
        QUADRILATERALS,
        wave(1),
        ((1 + T**2) * cos(X) * Y,),
        ((1 - T) ** 2 * X**2 * cos(pi * Y) / 5,),
        Control("neumann", R(1, 10), "right"),
        fixed("left"),
        end=1,
        scheme=CN,
    )


@form(FOUR)
def string_euler() -> Manufactured:
    return Manufactured(
        INTERVAL,
        wave(1),
        (T**2 * sin(pi * X),),
        ((1 - T) ** 2 * sin(pi * X) / 10,),
        Control(alpha=R(1, 10)),
        ENDS,
        end=1,
    )
