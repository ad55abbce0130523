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
    for nelx, nely, radius in SIZES:
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        for _ in range(repeats):
            known, *seconds = _timed(lambda size=(nelx, nely, radius): topology_baseline.solve(*size))
            theirs.append((seconds[0], seconds[1]))
            solution, *seconds = _timed(lambda size=(nelx, nely, radius): beam(*size))
            ours.append((seconds[0], seconds[1]))
        print(
            f"beam {nelx} x {nely}: compliance {solution.objective:.6g} and {known.compliance:.6g}, "
            f"{solution.stats['outer_iterations']} and {known.iterations} iterations, {solution.stats['solves']}",
        )
        for kind, k in (("wall", 0), ("user", 1)):
            mine, other = (statistics.median(each[k] for each in side) for side in (ours, theirs))
            print(f"  {kind}: {mine:.2f} s and {other:.2f} s, ratio {mine / other:.2f}", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    if "--compare" in given:
        given.remove("--compare")
        compare(*(int(each) for each in given))
    else:
        main(*(int(each) for each in given))
