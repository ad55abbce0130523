"""Problems whose optimum is known, by manufactured solutions: steady ones in space."""

from __future__ import annotations

from benchmarks.closed_forms import Forms, R, cos, exp, fixed, pi, sin
from benchmarks.manufactured import Control, Manufactured
from benchmarks.weak_forms import X, Y, Z, diffusion, elasticity

FORMS = Forms()
form = FORMS.enter

CUBE = {"kind": "box"}
HEXAHEDRA = {"kind": "box", "cell": "hexahedron"}
FACES = fixed("left", "right", "bottom", "top", "front", "back")


@form((2, 4, 8, 16))
def cube_of_tetrahedra() -> Manufactured:
    return Manufactured(
        CUBE,
        diffusion(1, 1, (1, 0, Y)),
        (cos(X + Y) * Z,),
        (sin(pi * X) * cos(Y) * Z / 10,),
        Control("neumann", R(1, 10), "back"),
        fixed("left", "right", "front"),
    )


@form((2, 4, 8, 16))
def cube_of_hexahedra() -> Manufactured:
    return Manufactured(
        HEXAHEDRA,
        diffusion(1 + Z),
        (exp(X) * cos(Y + Z),),
        (sin(pi * X) * sin(pi * Y) * sin(pi * Z) / 10,),
        Control(alpha=R(1, 10), space="P0"),
        FACES,
    )


@form((1, 2, 4, 8))
def box_p2() -> Manufactured:
    return Manufactured(
        {"kind": "box", "size": [2, 1, 1], "cells": [2, 1, 1]},
        diffusion(1),
        (sin(X) * cos(Y) * exp(Z),),
        (X * (2 - X) * sin(pi * Y) * sin(pi * Z) / 10,),
        Control(alpha=R(1, 10)),
        FACES,
        element="P2",
    )


@form((1, 2, 4, 8))
def elastic_block() -> Manufactured:
    return Manufactured(
        HEXAHEDRA,
        elasticity(3, 2, R(1, 4)),
        (X * cos(Y), sin(X) * Z, X * Y),
        (sin(X) / 20, X * Z / 20, X * Y / 20),
        Control(alpha=R(1, 10)),
        fixed("left"),
    )
