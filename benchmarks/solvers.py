"""Linear solvers side by side on the matrices of problems: `python -m benchmarks.solvers`.

    python -m benchmarks.solvers [turns [--large]]

Laplacians in two and three dimensions and elasticity in three, with linear elements, are solved by every solver that is
installed, with one thread, each `turns` (3) times. The table has medians of the processor's seconds of the preparation
and of one solve, both relative to SuperLU too, and the bytes that are kept. Below each family stands the size
from which multigrid takes less time than SuperLU with 20 solves, and the one on which `linalg/solvers/crossovers.py`
relies. Solvers leave out sizes from which on their preparation would take more than a minute.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

import nhgd_pde as nhgd
from nhgd_pde.linalg.solvers.base import Hints, Library, LinearSolver
from nhgd_pde.linalg.solvers.crossovers import CROSSOVER
from nhgd_pde.linalg.threads import at_most_threads
from nhgd_pde.problem_file.catalogue import SOLVERS, found_at

SOLVES = 20
# Longest preparation, and the power of the unknowns that it is expected to grow with.
_LONGEST, _POWER = 60.0, 2.0

FAMILIES: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "Laplacian, 2-D": (
        {"pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}}, "mesh": {"kind": "rectangle"}},
        (64, 128, 256),
        (512, 1000),
    ),
    "Laplacian, 3-D": (
        {"pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}}, "mesh": {"kind": "box"}},
        (8, 12, 16, 24, 32),
        (40, 63),
    ),
    "elasticity, 3-D": (
        {
            "pde": {
                "kind": "elasticity",
                "young": 1.0,
                "poisson_ratio": 0.3,
                "source": [0, 0, 0],
                "boundary": {"left": {"dirichlet": [0, 0, 0]}},
            },
            "mesh": {"kind": "box"},
        },
        (4, 6, 8, 12, 16),
        (24, 45),
    ),
}


@dataclass(frozen=True)
class Cost:
    """Seconds of the processor, and bytes."""

    prepare: float
    solve: float
    bytes: int

    @property
    def total(self) -> float:
        return self.prepare + SOLVES * self.solve


def system(sections: dict[str, Any], cells: int) -> tuple[sp.csr_matrix, Hints]:
    """The derivative of the equation by the state, and what is known of it."""
    dim = 2 if sections["mesh"]["kind"] == "rectangle" else 3
    mesh = {**sections["mesh"], "cells": [cells] * dim}
    objective = [{"kind": "regularisation", "weight": 1.0}]
    data = {"name": "systems", "mesh": mesh, "pde": sections["pde"], "control": {"kind": "source"}}
    equation = nhgd.load({**data, "objective": objective}).pde.equation
    u = equation.lift.new_zeros(1, equation.unknowns)
    matrix = equation.linearise(u, u.new_zeros(equation.controls)).state.host()
    return matrix, equation.solver.hints


def cost(name: str, matrix: sp.csr_matrix, hints: Hints, turns: int) -> Cost:
    b = torch.from_numpy(np.random.default_rng(0).standard_normal((1, matrix.shape[0])))
    solver = LinearSolver(found_at(SOLVERS[name])(), hints)
    prepare, solve, held = [], [], 0
    for _ in range(turns):
        start = time.process_time()
        prepared = solver.prepare(matrix, hints.symmetric)
        middle = time.process_time()
        prepared.solve(b)
        prepare.append(middle - start)
        solve.append(time.process_time() - middle)
        held = prepared.bytes
    return Cost(statistics.median(prepare), statistics.median(solve), held)


def installed() -> list[str]:
    found = []
    for name, place in SOLVERS.items():
        library: Library | None = getattr(found_at(place), "library", None)
        if library is None or library.found():
            found.append(name)
        else:
            print(f"{name} is left out: {library.name} is not there ({library.install})")
    return found


def crossover(sizes: list[int], factors: list[float], multigrid: list[float]) -> float | None:
    """Where two costs meet, on straight lines between logarithms; None if they do not."""
    gaps = [math.log(one / other) for one, other in zip(multigrid, factors, strict=True)]
    for k in range(1, len(gaps)):
        if gaps[k - 1] > 0.0 >= gaps[k]:
            share = gaps[k - 1] / (gaps[k - 1] - gaps[k])
            return math.exp((1.0 - share) * math.log(sizes[k - 1]) + share * math.log(sizes[k]))
    return None


def told(sizes: list[int], costs: dict[str, list[Cost]], dim: int) -> str:
    common = len(costs["superlu"])
    factors, multigrid = ([each.total for each in costs[name][:common]] for name in ("superlu", "amg"))
    there = f"in use: {CROSSOVER[dim]:,.0f} unknowns"
    if multigrid[0] <= factors[0]:
        return f"with {SOLVES} solves amg takes less time than superlu at every size; {there}"
    found = crossover(sizes[:common], factors, multigrid)
    if found is None:
        return f"with {SOLVES} solves superlu takes less time than amg at every size; {there}"
    return f"with {SOLVES} solves amg takes less time than superlu from {found:,.0f} unknowns on; {there}"


def family(title: str, names: list[str], turns: int, large: bool) -> None:
    sections, small, more = FAMILIES[title]
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    sizes: list[int] = []
    print(f"\n{title}\n{'unknowns':>9} {'solver':>8} {'prepare':>9} {'solve':>9} {'MB':>8}   ratios to superlu")
    for cells in (*small, *more) if large else small:
        matrix, hints = system(sections, cells)
        sizes.append(matrix.shape[0])
        for name in names:
            before = costs[name]
            if len(before) < len(sizes) - 1:
                continue
            if before and before[-1].prepare * (sizes[-1] / sizes[-2]) ** _POWER > _LONGEST:
                continue
            before.append(cost(name, matrix, hints, turns))
            usual = costs["superlu"][-1] if len(costs["superlu"]) == len(sizes) else None
            mine = before[-1]
            ratios = "" if usual is None else f"{mine.prepare / usual.prepare:8.2f} {mine.solve / usual.solve:7.2f}"
            held = f"{mine.bytes / 1e6:8.1f} {ratios}"
            print(f"{sizes[-1]:>9,} {name:>8} {mine.prepare:>8.3f}s {mine.solve:>8.4f}s {held}", flush=True)
    print(told(sizes, costs, int(title[-3])))


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--large"]
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; one thread")
    names = installed()
    with at_most_threads(1):
        for title in FAMILIES:
            family(title, names, int(words[0]) if words else 3, "--large" in sys.argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
