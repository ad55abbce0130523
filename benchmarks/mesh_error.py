"""The estimate of the discretisation error against the true one, on four meshes of each problem.

    python -m benchmarks.mesh_error [NAME ...]

The true error is that against the optimum of the continuous problem, where that is known, and otherwise against the
value extrapolated from two finer meshes, which is marked by a star. Printed are J, the true error J* - J, and the
effectivity: the estimate over the true error.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nhgd_pde as nhgd
from benchmarks.reference import (
    ALPHA,
    MOTHER_OBJECTIVE,
    MOTHER_TARGET,
    SPECTRAL_OBJECTIVE,
    SPECTRAL_TARGET,
    poisson_control,
)
from nhgd_pde.discretisation import estimate_error


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


SQUARE, FOUR = (1, 1), (8, 16, 32, 64)
COARSE = (4, 8, 16, 32)
CASES = {
    "mother": Case(lambda n: on(n, MOTHER_TARGET), FOUR, MOTHER_OBJECTIVE),
    "mother_quadrilaterals": Case(
        lambda n: on(n, MOTHER_TARGET, {"kind": "rectangle", "cells": [n, n], "cell": "quadrilateral"}),
        FOUR,
        MOTHER_OBJECTIVE,
    ),
    "mother_p2": Case(lambda n: on(n, MOTHER_TARGET, element="P2"), COARSE, MOTHER_OBJECTIVE, 4.0),
    "spectral": Case(lambda n: on(n, SPECTRAL_TARGET), FOUR, SPECTRAL_OBJECTIVE),
    "spectral_p2": Case(lambda n: on(n, SPECTRAL_TARGET, element="P2"), COARSE, SPECTRAL_OBJECTIVE, 4.0),
    "poisson_bounds": Case(shipped("poisson_bounds", SQUARE), FOUR),
    "neumann": Case(shipped("neumann_control", SQUARE), FOUR, 0.63764347718),
    "stokes": Case(shipped("stokes_control", SQUARE), COARSE, 0.0603204546204, 4.0),
    "dirichlet": Case(shipped("dirichlet_control", SQUARE), FOUR),
    "semilinear": Case(shipped("semilinear_control", SQUARE), FOUR),
    "advection": Case(shipped("advection_control", SQUARE), FOUR),
    "navier_stokes": Case(shipped("navier_stokes_control", SQUARE), COARSE, None, 4.0),
    "elastic": Case(shipped("elastic_control", (4, 1)), (2, 4, 8), None, 3.0),
    "helmholtz": Case(shipped("helmholtz_control", SQUARE), COARSE, None, 4.0),
    "box": Case(shipped("poisson_control_3d", (1, 1, 1)), (4, 8, 16)),
    "box_hexahedra": Case(shipped("poisson_control_3d", (1, 1, 1), mesh__cell="hexahedron"), (4, 8, 16)),
    "parameter_fit": Case(shipped("parameter_fit", SQUARE), FOUR),
    "minimal_surface": Case(shipped("minimal_surface", SQUARE), FOUR),
    "sparse": Case(shipped("sparse_control", SQUARE), FOUR),
    "insulated_wall": Case(shipped("insulated_wall", (2, 1)), (8, 16, 32)),
    "heat_sink": Case(shipped("heat_sink", SQUARE), FOUR),
    "log_conductivity": Case(shipped("log_conductivity_inversion", SQUARE), FOUR),
    "switched_heaters": Case(shipped("switched_heaters", (1,)), (20, 40, 80, 160)),
    "disk": Case(lambda n: on(n, "exp(-3*(x**2+y**2))", {"kind": "disk", "refine": round(math.log2(n))}), FOUR),
    "l_shape": Case(lambda n: on(n, "1", {"kind": "l_shape", "refine": round(math.log2(n))}), FOUR, None, 4.0 / 3.0),
}


def optimum_of(case: Case) -> float:
    if case.optimum is not None:
        return case.optimum
    values = [nhgd.solve(case.at(n * case.cells[-1])).objective for n in (2, 4)]
    share = 2.0**case.order
    return (share * values[1] - values[0]) / (share - 1.0)


def measured(case: Case) -> list[tuple[int, float, float, float]]:
    """For each mesh its cells along an axis, J, the true error and the effectivity."""
    optimum, found = optimum_of(case), []
    for n in case.cells:
        problem = case.at(n)
        solution = nhgd.solve(problem)
        error = optimum - solution.objective
        found.append((n, solution.objective, error, estimate_error(problem, solution).value / error))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or list(CASES)
    for name in names:
        star = "" if CASES[name].optimum is not None else "*"
        for n, objective, error, effectivity in measured(CASES[name]):
            print(f"| {name}{star} | {n} | {objective:.9e} | {error:.2e} | {effectivity:.3f} |", flush=True)


if __name__ == "__main__":
    main()
