"""Published designs, and their cost beside a compact NumPy code.

The MBB half beam of Andreassen et al. 2011 and dolfin-adjoint's heat sink (poisson-topology) against their published
objectives:

    python -m benchmarks.topology [cells of the heat sink along each side; the published one has 250]

The same beam on 60 x 20 and 150 x 50 cells by the optimality criteria, here and in `topology_baseline`, in turns, with
one thread, SuperLU on both sides with the same options, and medians of the repeats. All that a solve takes counts
(mesh, patterns, iterations), imports apart. On a busy machine `user` is the time to look at.

    python -m benchmarks.topology --compare [repeats]
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import nhgd_pde as nhgd

from . import topology_baseline

PROBLEMS = Path(__file__).parents[1] / "problems"
BEAMS = (("cone", 2.4, 233.71), ("sensitivity", 2.4, 216.81), ("sensitivity", 1.5, 203.19))
HEAT_SINK = 1.45e-4
# Cells along both sides and the radius of the filter: a twenty-fifth of the length, as in the paper.
SIZES = ((60, 20, 2.4), (150, 50, 6.0))


def _solved(name: str, overrides: dict[str, Any]) -> nhgd.Solution:
    return nhgd.solve(nhgd.load(PROBLEMS / f"{name}.yaml", overrides))


def _report(what: str, solution: nhgd.Solution, published: str) -> None:
    stats = solution.stats
    print(
        f"{what}: objective {solution.objective:.6g} (published {published}), {stats['outer_iterations']} iterations, "
        f"{stats['solves']['factorisations']} factorisations, {stats['seconds']:.1f} s; {solution.status}",
        flush=True,
    )


def main(cells: int = 250) -> None:
    for kind, radius, published in BEAMS:
        overrides = {"outer.method": "oc", "control.filter": kind, "control.filter_radius": radius}
        _report(f"beam, {kind} filter, radius {radius}", _solved("mbb_beam", overrides), f"{published}")
    _report("beam, cone filter, moving asymptotes", _solved("mbb_beam", {}), f"{BEAMS[0][2]}")
    solution = _solved("heat_sink", {"mesh.cells": [cells, cells]})
    _report(f"heat sink, {cells} x {cells} cells", solution, f"at most {HEAT_SINK:g}")


def beam(nelx: int, nely: int, radius: float) -> nhgd.Solution:
    """The shipped half beam on other cells of side one, by optimality criteria."""
    return _solved(
        "mbb_beam",
        {
            "mesh.size": [nelx, nely],
            "mesh.cells": [nelx, nely],
            "control.filter_radius": radius,
            "outer.method": "oc",
            "outer.iterations": 2000,
            "pde.points": [
                {"at": [nelx, 0], "dirichlet": [None, 0]},
                {"at": [0, nely], "load": [0, -1]},
            ],
        },
    )


def _timed(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a function returns, its wall seconds, and its seconds of user time."""
    wall, user = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    found = run()
    return found, time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF).ru_utime - user


def compare(repeats: int = 3) -> None:
    torch.set_num_threads(1)
    topology_baseline.solve(12, 4, 1.5)
    beam(12, 4, 1.5)
    for size in SIZES:
        runs: dict[str, Callable[[], Any]] = {
            "here": partial(beam, *size),
            "compact code": partial(topology_baseline.solve, *size),
            "compact code as published": partial(topology_baseline.solve, *size, published=True),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        found: dict[str, Any] = {}
        for _ in range(repeats):
            for name, run in runs.items():
                found[name], wall, user = _timed(run)
                times[name].append((wall, user))
        solution = found["here"]
        work = solution.stats["solves"]
        print(f"beam {size[0]} x {size[1]}: {work['factorisations']} factorisations and {work['solves']} solves here")
        for name, each in found.items():
            wall, user = (statistics.median(seconds[k] for seconds in times[name]) for k in (0, 1))
            ours = [statistics.median(seconds[k] for seconds in times["here"]) for k in (0, 1)]
            value, steps = (
                (each.objective, each.stats["outer_iterations"])
                if each is solution
                else (each.compliance, each.iterations)
            )
            print(
                f"  {name}: compliance {value:.6g}, {steps} iterations, {wall:.2f} s, user {user:.2f} s; "
                f"here / this {ours[0] / wall:.2f}, user {ours[1] / user:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    given = sys.argv[1:]
    if "--compare" in given:
        given.remove("--compare")
        compare(*(int(each) for each in given))
    else:
        main(*(int(each) for each in given))
