"""The estimate of the discretisation error against the true one, on four meshes of each problem.

    python -m benchmarks.mesh_error [NAME ...]

The true error is that against the optimum of the continuous problem, where that is known, and otherwise against the
value extrapolated from two finer meshes, which is marked by a star. Printed are J, the true error J* - J, and the
effectivity: the estimate over the true error, and the number of digits of J that count by the estimate.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import nhgd_pde as nhgd
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
from nhgd_pde.discretisation import estimate_error
from nhgd_pde.discretisation.counting_digits import counting_digits


@dataclass(frozen=True)
class Case:
    """A problem on meshes of any width.

    Attributes:
        at: number of cells along an axis -> the problem.
        cells: the numbers of cells of four meshes, each twice the one before.
        optimum: the optimum of the continuous problem; None where it is extrapolated.
        order: the order of the objective, for the extrapolation.
    """

    at: Callable[[int], nhgd.Problem]
    cells: tuple[int, ...]
    optimum: float | None = None
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


def optimum_of(case: Case) -> float:
    if case.optimum is not None:
        return case.optimum
    values = [nhgd.solve(case.at(n * case.cells[-1])).objective for n in (2, 4)]
    share = 2.0**case.order
    return (share * values[1] - values[0]) / (share - 1.0)


def measured(case: Case, n: int, optimum: float) -> tuple[float, float, float]:
    """On one mesh J, the true error and the estimated one."""
    problem = case.at(n)
    solution = nhgd.solve(problem)
    return solution.objective, optimum - solution.objective, estimate_error(problem, solution).value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or list(CASES)
    for name in names:
        star = "" if CASES[name].optimum is not None else "*"
        optimum = optimum_of(CASES[name])
        for n in CASES[name].cells:
            objective, error, estimate = measured(CASES[name], n, optimum)
            digits = counting_digits(objective, estimate)
            print(
                f"| {name}{star} | {n} | {objective:.9e} | {error:.2e} | {estimate / error:.3f} | {digits} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
