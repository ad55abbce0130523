"""Adaptive and uniform meshes: unknowns and time until the objective has a given error.

Prints the table of docs/adaptive_meshes.md: python -m benchmarks.adaptive
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nhgd_pde as nhgd

PROBLEM = Path(__file__).parents[1] / "problems" / "l_shape_adaptive.yaml"
# The objective of the continuous problem to ten digits, from adaptive meshes with quadratic elements (`reference`).
OPTIMUM = 0.0482764127


class Reached(NamedTuple):
    """What a mesh has reached.

    Attributes:
        unknowns: number of unknowns of the state.
        error: distance of the objective to that of the continuous problem, relative to it.
        seconds: time until then, with all meshes before.
    """

    unknowns: int
    error: float
    seconds: float


def reference(tolerance: float = 1e-6) -> nhgd.Solution:
    """The solution with quadratic elements, whose `estimated_error` on the last mesh corrects its objective."""
    return nhgd.solve(nhgd.load(PROBLEM, {"element": "P2", "mesh.adapt.tolerance": tolerance}))


def adaptive(tolerance: float, **changes: Any) -> Iterator[Reached]:
    """The meshes of an adaptive run."""
    solution = nhgd.solve(nhgd.load(PROBLEM, {"mesh.adapt.tolerance": tolerance, **changes}))
    seconds = np.cumsum([each.seconds for each in solution.levels])
    for level, spent in zip(solution.levels, seconds, strict=True):
        yield Reached(level.unknowns, abs(level.objective - OPTIMUM) / OPTIMUM, float(spent))


def uniform(refinements: range) -> Iterator[Reached]:
    """Meshes that are refined everywhere, each solved alone."""
    for refine in refinements:
        start = time.perf_counter()
        problem = nhgd.load(PROBLEM, {"mesh": {"kind": "l_shape", "refine": refine}})
        solution = nhgd.solve(problem)
        spent = time.perf_counter() - start
        yield Reached(problem.inner_shape[1], abs(solution.objective - OPTIMUM) / OPTIMUM, spent)


def order(found: list[Reached]) -> float:
    """The power of the number of unknowns with which the error falls, by least squares."""
    unknowns, errors = (np.log([each[k] for each in found]) for k in (0, 1))
    return float(np.polyfit(unknowns, errors, 1)[0])


def main() -> None:
    for name, found in (("adaptive", list(adaptive(1e-4))), ("uniform", list(uniform(range(2, 10))))):
        print(f"{name} meshes, error ~ unknowns^{order(found[len(found) // 2 :]):.2f}")
        print("  unknowns     error  seconds")
        for each in found:
            print(f"{each.unknowns:10,} {each.error:9.1e} {each.seconds:8.1f}")


if __name__ == "__main__":
    main()
