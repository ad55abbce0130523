"""The estimate of the discretisation error against the true one, on four meshes of each problem.

    python -m benchmarks.mesh_error [--second-finest] [NAME ...]

The true error is that against the optimum of the continuous problem, where that is known, and otherwise against the
value extrapolated from two finer meshes, which is marked by a star. Printed are J, the true error J* - J, the
effectivity, which is the estimate over the true error, the number of digits of J that are said to count, and the number
of those that are right.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import nhgd_pde as nhgd
from benchmarks import closed_evolutions, closed_forms, closed_planes, closed_solids
from benchmarks.manufactured import Manufactured
from benchmarks.reference import (
    ALPHA,
    MOTHER_OBJECTIVE,
    MOTHER_TARGET,
    MPDIST2,
    SPECTRAL_OBJECTIVE,
    SPECTRAL_TARGET,
    mpdist2,
    poisson_control,
    spectral_optimum,
)
from nhgd_pde.discretisation import ErrorEstimate, estimate_error
from nhgd_pde.output.counting_digits import counting_digits


@dataclass(frozen=True)
class Case:
    """A problem on meshes of any width.

    Attributes:
        at: number of cells along an axis -> the problem.
        cells: the numbers of cells of four meshes, each twice the one before.
        optimum: the optimum of the continuous problem, or a function that finds it; None where it is extrapolated.
        order: the order of the objective, for the extrapolation.
    """

    at: Callable[[int], nhgd.Problem]
    cells: tuple[int, ...]
    optimum: float | Callable[[], float] | None = None
    order: float = 2.0


def shipped(name: str, shape: tuple[int, ...], **changes: Any) -> Callable[[int], nhgd.Problem]:
    """A shipped problem with n times `shape` cells, and other changes with `__` for dots."""
    others = {key.replace("__", "."): value for key, value in changes.items()}

    def at(n: int) -> nhgd.Problem:
        cells = [n * each for each in shape]
        return nhgd.load(f"problems/{name}.yaml", {"mesh.cells": cells, "outer.rtol": 1e-9, **others})

    return at


def on(n: int, target: str, mesh: dict[str, Any] | None = None, **more: Any) -> nhgd.Problem:
    return nhgd.load({**poisson_control(n, target, ALPHA, mesh), **more})


def interval(n: int, element: str = "P1") -> nhgd.Problem:
    return on(n, "sin(pi*x)", {"kind": "interval", "cells": n}, element=element)


def box(n: int, cell: str) -> nhgd.Problem:
    return on(n, "sin(pi*x)*sin(pi*y)*sin(pi*z)", {"kind": "box", "cells": [n, n, n], "cell": cell})


def manufactured(cells: tuple[int, ...], make: Callable[[], Manufactured]) -> Case:
    """A problem with a chosen optimum, which is made when it is first needed."""
    made = cache(make)
    return Case(lambda n: nhgd.load(made().content(n)), cells, lambda: made().optimum)


def bounded_optimum() -> float:
    """The optimum of `poisson_bounds.yaml`, by the midpoint rule on a quarter of a period in both directions."""
    x = (np.arange(2000) + 0.5) / 2000
    product = 5.0 * np.sin(2.0 * np.pi * x)[:, None] * np.sin(2.0 * np.pi * x)
    control = np.clip(-product, -2.0, 3.0)
    return 0.5 * (0.4 * np.pi**2) ** 2 / 4.0 + 0.005 * float((control**2).mean())


# sum of the squares in space and time of y - y_d, and of u = -10 (1 - t)^2 sin sin, with y = t^2 sin sin.
WAVE = 0.005 * (1.0 + 2.0 * math.pi**2 / 3.0 + math.pi**4 / 5.0) + 0.025

SQUARE, FOUR, COARSE = (1, 1), (8, 16, 32, 64), (4, 8, 16, 32)
QUADRILATERALS = {"kind": "rectangle", "cell": "quadrilateral"}
KNOWN = {
    "mother": Case(lambda n: on(n, MOTHER_TARGET), FOUR, MOTHER_OBJECTIVE),
    "mother_quadrilaterals": Case(
        lambda n: on(n, MOTHER_TARGET, {**QUADRILATERALS, "cells": [n, n]}), FOUR, MOTHER_OBJECTIVE
    ),
    "mother_p2": Case(lambda n: on(n, MOTHER_TARGET, element="P2"), COARSE, MOTHER_OBJECTIVE),
    "spectral": Case(lambda n: on(n, SPECTRAL_TARGET), FOUR, SPECTRAL_OBJECTIVE),
    "spectral_p2": Case(lambda n: on(n, SPECTRAL_TARGET, element="P2"), COARSE, SPECTRAL_OBJECTIVE),
    "interval": Case(interval, FOUR, spectral_optimum(1.0, math.pi**2, ALPHA, 0.5)[1]),
    "interval_p2": Case(lambda n: interval(n, "P2"), COARSE, spectral_optimum(1.0, math.pi**2, ALPHA, 0.5)[1]),
    "tetrahedra": Case(
        lambda n: box(n, "tetrahedron"), (3, 6, 12, 24), spectral_optimum(1.0, 3.0 * math.pi**2, ALPHA, 0.125)[1]
    ),
    "hexahedra": Case(
        lambda n: box(n, "hexahedron"), (3, 6, 12, 24), spectral_optimum(1.0, 3.0 * math.pi**2, ALPHA, 0.125)[1]
    ),
    "poisson_bounds": Case(shipped("poisson_bounds", SQUARE), FOUR, bounded_optimum()),
    "neumann": Case(shipped("neumann_control", SQUARE), FOUR, 0.63764347718),
    "dirichlet": Case(shipped("dirichlet_control", SQUARE), FOUR, 58.5741499180906),
    "stokes": Case(shipped("stokes_control", SQUARE), COARSE, 0.0603204546204),
    "heat": Case(lambda n: nhgd.load(mpdist2(1, 0.05, n)), FOUR, MPDIST2[1, 0.05]),
    "heat_2d": Case(lambda n: nhgd.load(mpdist2(2, 0.05, n)), COARSE, MPDIST2[2, 0.05]),
    "heat_initial": Case(
        lambda n: shipped("heat_initial", SQUARE, time__steps=n * n // 4)(n), COARSE, 0.00615875711690
    ),
    "wave": Case(lambda n: shipped("wave_source", SQUARE, time__steps=n)(n), COARSE, WAVE),
    **{
        name: manufactured(*each)
        for table in (closed_forms, closed_planes, closed_solids, closed_evolutions)
        for name, each in table.FORMS.items()
    },
}
EXTRAPOLATED = {
    "semilinear": Case(shipped("semilinear_control", SQUARE), FOUR),
    "advection": Case(shipped("advection_control", SQUARE), FOUR),
    "navier_stokes": Case(shipped("navier_stokes_control", SQUARE), COARSE, None, 4.0),
    "elastic": Case(shipped("elastic_control", (4, 1)), (2, 4, 8), None, 3.0),
    "helmholtz": Case(shipped("helmholtz_control", SQUARE), COARSE, None, 4.0),
    "minimal_surface": Case(shipped("minimal_surface", SQUARE), FOUR),
    "sparse": Case(shipped("sparse_control", SQUARE), FOUR),
    "heat_sink": Case(shipped("heat_sink", SQUARE), FOUR),
    "log_conductivity": Case(shipped("log_conductivity_inversion", SQUARE), FOUR),
    "disk": Case(lambda n: on(n, "exp(-3*(x**2+y**2))", {"kind": "disk", "refine": round(math.log2(n))}), FOUR),
    "l_shape": Case(lambda n: on(n, "1", {"kind": "l_shape", "refine": round(math.log2(n))}), FOUR, None, 4.0 / 3.0),
}
CASES = {**KNOWN, **EXTRAPOLATED}
assert len(CASES) == len(KNOWN) + len(EXTRAPOLATED), "names of cases must differ"


def optimum_of(case: Case) -> float:
    if case.optimum is not None:
        return case.optimum() if callable(case.optimum) else case.optimum
    values = [nhgd.solve(case.at(n * case.cells[-1])).objective for n in (2, 4)]
    share = 2.0**case.order
    return (share * values[1] - values[0]) / (share - 1.0)


def measured(case: Case, n: int, optimum: float) -> tuple[float, float, ErrorEstimate]:
    """On one mesh J, the true error and the estimated one."""
    problem = case.at(n)
    solution = nhgd.solve(problem)
    return solution.objective, optimum - solution.objective, estimate_error(problem, solution)


def digits_said(objective: float, estimate: ErrorEstimate) -> int:
    """The digits that count by the error of the mesh alone, as a run counts them."""
    return counting_digits(objective, abs(estimate.value) + estimate.uncertainty)


def digits_right(objective: float, error: float) -> int:
    """The digits d of which the error is at most half a unit."""
    first = math.floor(math.log10(abs(objective)))
    return min(max(first - math.ceil(math.log10(2.0 * abs(error))) + 1, 0), 16) if error else 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--second-finest", action="store_true", help="the second finest mesh of each problem alone")
    options = parser.parse_args()
    for name in options.names or list(CASES):
        case = CASES[name]
        star = "" if case.optimum is not None else "*"
        optimum = optimum_of(case)
        for n in case.cells[-2:-1] if options.second_finest else case.cells:
            objective, error, estimate = measured(case, n, optimum)
            said, right = digits_said(objective, estimate), digits_right(objective, error)
            share = f"{estimate.value / error:.2f}"
            row = [f"{name}{star}", n, f"{objective:.6e}", f"{error:.1e}", share, f"{said} / {right}"]
            print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    main()
