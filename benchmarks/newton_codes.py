"""nhgd-pde against Newton codes written by hand: a semilinear equation, bounds, an inversion for log-conductivity.

    python -m benchmarks.newton_codes [--cells N ...] [--repeats R] [PROBLEM ...]

The opponents are in `newton_baselines` and `inversion_baseline`. Both sides solve the same discrete problem up to the
same relative gradient in the same norm, in turns, in one process with one thread and SuperLU. Everything but imports
counts: mesh, matrices, patterns and iterations. On a busy machine `user` is the time to look at. Ratios are medians of
the ratios of the turns. Exits with 1 if the objectives differ by more than 1e-6 of themselves, or if a run does not
converge.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

import nhgd_pde as nhgd

from . import newton_baselines
from .inversion_baseline import log_conductivity
from .newton_baselines import Optimum

PROBLEMS = Path(__file__).parents[1] / "problems"
CODES: dict[str, Callable[[int], Optimum]] = {
    "semilinear_control": newton_baselines.semilinear,
    "poisson_bounds": newton_baselines.bounds,
    "log_conductivity_inversion": log_conductivity,
}
AGREED, RTOL = 1e-6, 1e-8


def ours(name: str, n: int) -> nhgd.Solution:
    # The codes by hand make no estimate of the error of the mesh.
    overrides: dict[str, Any] = {"mesh.cells": [n, n], "solver.kind": "superlu", "output.estimate": "never"}
    if name != "log_conductivity_inversion":
        # The codes by hand interpolate the target; the inversion has sensors.
        overrides["objective.0.target_at"] = "nodes"
    return nhgd.solve(nhgd.load(PROBLEMS / f"{name}.yaml", overrides))


def _timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a function returns, its wall seconds, and its seconds of user time."""
    wall, user = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    found = run()
    return found, time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF).ru_utime - user


def compare(name: str, n: int, repeats: int) -> str | None:
    """Prints a row of the table; a sentence where the comparison does not hold."""
    times: list[tuple[float, float, float, float]] = []
    for _ in range(repeats):
        theirs, *by_hand = _timed(lambda: CODES[name](n))
        solution, *here = _timed(lambda: ours(name, n))
        times.append((*here, *by_hand))
    work = solution.stats["solves"]
    wall, user, wall_by_hand, user_by_hand = (statistics.median(each) for each in zip(*times, strict=True))
    ratios = [statistics.median(each[k] / each[k + 2] for each in times) for k in (0, 1)]
    print(
        f"| {name} | {n} | {solution.objective:.9g} | {solution.stats['outer_iterations']} / {theirs.iterations} "
        f"| {work['factorisations']} / {theirs.factorisations} | {work['solves']} / {theirs.solves} "
        f"| {wall:.2f} / {wall_by_hand:.2f} | {user:.2f} / {user_by_hand:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |",
        flush=True,
    )
    gap = abs(solution.objective - theirs.objective)
    if not gap <= AGREED * abs(theirs.objective):
        return f"{name} at {n}: objective {solution.objective}, by hand {theirs.objective}"
    if solution.status != "converged" or not theirs.reduction <= RTOL:
        return f"{name} at {n}: {solution.message}; relative gradient by hand {theirs.reduction:.1e}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=f"default: {' '.join(CODES)}")
    parser.add_argument("--cells", nargs="*", type=int, default=[256], help="cells along each side")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = [
        "problem",
        "cells a side",
        "objective",
        "iterations",
        "factorisations",
        "solves",
        "seconds",
        "user seconds",
    ]
    columns += ["ratio of seconds", "ratio of user seconds"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    complaints = []
    for name in arguments.problems or CODES:
        # The first solve imports what the library loads late.
        CODES[name](8), ours(name, 8)
        # The codes by hand would otherwise take all cores in NumPy's products.
        with threadpool_limits(1):
            complaints += [compare(name, n, arguments.repeats) for n in arguments.cells]
    if any(complaints):
        sys.exit("; ".join(filter(None, complaints)))


if __name__ == "__main__":
    main()
