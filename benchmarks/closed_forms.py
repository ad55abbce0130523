"""Problems whose optimum is known, by manufactured solutions: what their tables share, and those on an interval.

An entry of a table has the numbers of cells of four meshes, and a function that makes the problem, which takes a
moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp

from benchmarks.manufactured import Control, Manufactured
from benchmarks.weak_forms import X, diffusion

pi, sin, cos, exp = sp.pi, sp.sin, sp.cos, sp.exp
R = sp.Rational
FOUR, COARSE, LINE = (8, 16, 32, 64), (4, 8, 16, 32), (16, 32, 64, 128)
SQUARE = {"kind": "rectangle"}
QUADRILATERALS = {"kind": "rectangle", "cell": "quadrilateral"}
INTERVAL = {"kind": "interval"}


class Forms(dict[str, tuple[tuple[int, ...], Callable[[], Manufactured]]]):
    """Problems by their names."""

    def enter(self, cells: tuple[int, ...]) -> Callable[[Callable[[], Manufactured]], Callable[[], Manufactured]]:
        """Enters a function with its numbers of cells under its name."""

        def entered(make: Callable[[], Manufactured]) -> Callable[[], Manufactured]:
            self[make.__name__] = cells, make
            return make

        return entered


def fixed(*sides: str) -> dict[str, Any]:
    return dict.fromkeys(sides, "dirichlet")


FORMS = Forms()
form = FORMS.enter
ENDS, EDGES = fixed("left", "right"), fixed("left", "right", "bottom", "top")


@form(LINE)
def reaction_line() -> Manufactured:
    return Manufactured(
        INTERVAL, diffusion(1 + X / 2, 3), (exp(X),), (sin(pi * X) / 10,), Control(alpha=R(1, 100)), ENDS
    )


@form(LINE)
def neumann_end_p2() -> Manufactured:
    return Manufactured(
        INTERVAL,
        diffusion(1, 1),
        (cos(3 * X),),
        (X * (2 - X) * exp(X) / 20,),
        Control(alpha=R(1, 10)),
        fixed("left"),
        element="P2",
    )


@form(LINE)
def layer_line() -> Manufactured:
    width = R(1, 50)
    layer = (exp((X - 1) / width) - exp(-1 / width)) / (1 - exp(-1 / width))
    return Manufactured(
        INTERVAL,
        diffusion(width, velocity=(1,)),
        (X - layer,),
        (sin(pi * X) / 10,),
        Control(alpha=R(1, 10)),
        ENDS,
    )


@form(LINE)
def two_layers() -> Manufactured:
    """Layers of the state on the right and of the adjoint variable on the left."""
    width = R(1, 30)
    return Manufactured(
        INTERVAL,
        diffusion(width, velocity=(1,)),
        (X - exp((X - 1) / width),),
        ((1 - X - exp(-X / width) + X * exp(-1 / width)) / 10,),
        Control(alpha=R(1, 10)),
        ENDS,
    )


@form(LINE)
def oscillating_line() -> Manufactured:
    return Manufactured(
        INTERVAL, diffusion(1), (X * (1 - X),), (sin(12 * pi * X) / 1000,), Control(alpha=R(1, 1000)), ENDS
    )


@form(LINE)
def tiny_weight() -> Manufactured:
    shape = X**2 * (1 - X) ** 2
    return Manufactured(INTERVAL, diffusion(1), (sin(pi * X),), (shape / 10**8,), Control(alpha=R(1, 10**9)), ENDS)


@form(LINE)
def millimetres() -> Manufactured:
    """A rod of a millimetre at some 300 kelvins, with a conductivity of 400 and sources of the order 1e8."""
    x = 1000 * X
    return Manufactured(
        {"kind": "interval", "size": 1e-3},
        diffusion(400),
        (300 + 20 * sin(3 * x),),
        (x * (1 - x) * exp(x) / 10**6,),
        Control(alpha=R(1, 10**13)),
        ENDS,
    )


@form(LINE)
def far_target() -> Manufactured:
    """A state that varies by 1 about 1e4, and a target that is 1e3 away from it."""
    return Manufactured(
        INTERVAL, diffusion(1, 2), (10000 + cos(5 * X),), (400 + cos(pi * X),), Control(alpha=1), element="P1"
    )


@form(LINE)
def sparse_line() -> Manufactured:
    return Manufactured(
        INTERVAL, diffusion(1), (sin(2 * X),), (sin(3 * pi * X) / 10,), Control(alpha=R(1, 20), l1=R(1, 25)), ENDS
    )


@form(LINE)
def bounds_line_p2() -> Manufactured:
    return Manufactured(
        INTERVAL,
        diffusion(1 + X**2, velocity=(2,)),
        (exp(-X),),
        (sin(2 * pi * X) / 10,),
        Control(alpha=R(1, 10), bounds=(R(-1, 3), R(2, 3))),
        ENDS,
        element="P2",
    )


@form(LINE)
def number_line() -> Manufactured:
    return Manufactured(
        INTERVAL,
        diffusion(1, 1),
        (X**3,),
        (sin(pi * X) / 5,),
        Control(alpha=R(1, 10), space="constant", gain=1 + X),
        ENDS,
    )


@form(LINE)
def parameter_line() -> Manufactured:
    return Manufactured(
        INTERVAL, diffusion(1), (sin(2 * X),), (X * (1 - X),), Control("parameter", R(1, 2), gain=cos(X)), ENDS
    )


@form(LINE)
def flux_at_the_end() -> Manufactured:
    return Manufactured(
        INTERVAL, diffusion(2), (cos(4 * X),), (X * exp(X) / 10,), Control("neumann", R(1, 4), "right"), fixed("left")
    )


@form(LINE)
def smooth_control() -> Manufactured:
    return Manufactured(
        INTERVAL,
        diffusion(1, 1),
        (exp(X) * X,),
        (sin(pi * X) / 10,),
        Control(alpha=R(1, 10), h1=R(1, 100), wanted=(cos(2 * pi * X) + X**2 * (3 - 2 * X),)),
        ENDS,
    )
