"""Poisson control in 3-D by hand: scikit-fem, pyamg and conjugate gradients for the control.

    python -m benchmarks.pyamg_baseline [--cells 24 40 63] [--repeats 3]

The problem is that of problems/poisson_control_3d.yaml. With stiffness K and mass M, the control v minimises

    1/2 (u - t) . M (u - t) + a/2 v . M v,    K u = M v,

so that the gradient in L2 is a v + p with K p = M (u - t) and the Hessian is a + K^-1 M K^-1 M, without any solve with
M. The hierarchy is smoothed aggregation with pyamg's defaults; systems are solved by its conjugate gradients. Without
`--by-hand` both codes run in turns, each in a process of its own with one thread; seconds are those from the mesh, or
from the problem file, to the answer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WEIGHT, RTOL, SOLVE = 1e-4, 1e-8, 1e-10


def user_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def by_hand(cells: int) -> dict[str, Any]:
    """The hand-written code."""
    import pyamg
    import skfem
    from skfem.models.poisson import laplace, mass

    np.random.seed(0)
    used, start = user_seconds(), time.monotonic()
    line = np.linspace(0.0, 1.0, cells + 1)
    mesh = skfem.MeshTet.init_tensor(line, line, line)
    basis = skfem.Basis(mesh, skfem.ElementTetP1(), intorder=2)
    stiffness, gram = laplace.assemble(basis), mass.assemble(basis)
    target = np.prod(np.sin(np.pi * mesh.p), axis=0)
    inner = mesh.interior_nodes()
    reduced = stiffness[inner][:, inner].tocsr()
    hierarchy = pyamg.smoothed_aggregation_solver(reduced)
    solves = 0

    def solved(load: np.ndarray) -> np.ndarray:
        nonlocal solves
        solves += 1
        found = np.zeros(len(load))
        found[inner] = hierarchy.solve(load[inner], tol=SOLVE, accel="cg")
        return found

    # Conjugate gradients in the inner product of M from v = 0, where the gradient is p alone.
    v = np.zeros(basis.N)
    r = solved(gram @ target)
    d, square = r.copy(), float(r @ (gram @ r))
    first, iterations, value_at = square, 0, 0.5 * float(target @ (gram @ target))
    while square > RTOL**2 * first:
        image = WEIGHT * d + solved(gram @ solved(gram @ d))
        step = square / float(d @ (gram @ image))
        v, r = v + step * d, r - step * image
        before, square = square, float(r @ (gram @ r))
        d = r + square / before * d
        iterations += 1
    u = solved(gram @ v)
    value_at = 0.5 * float((u - target) @ (gram @ (u - target))) + 0.5 * WEIGHT * float(v @ (gram @ v))
    return measured(value_at, iterations, solves, used, start)


def ours(cells: int) -> dict[str, Any]:
    """The same problem by the package."""
    import torch

    import nhgd_pde as nhgd

    torch.set_num_threads(1)
    used, start = user_seconds(), time.monotonic()
    problem = nhgd.load(ROOT / "problems/poisson_control_3d.yaml", {"mesh.cells": [cells] * 3})
    found = nhgd.solve(problem)
    assert found.status == "converged", found.message
    stats = found.stats
    return measured(found.objective, stats["outer_iterations"], stats["solves"]["solves"], used, start)


def measured(objective: float, iterations: int, solves: int, used: float, start: float) -> dict[str, Any]:
    return {
        "objective": objective,
        "iterations": iterations,
        "solves": solves,
        "user": user_seconds() - used,
        "seconds": time.monotonic() - start,
        "bytes": 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


CODES = {"by hand": by_hand, "nhgd-pde": ours}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cells", type=int, nargs="*", default=[24, 40, 63])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=CODES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(CODES[given.one](given.cells[0])))
        return 0
    agreed = True
    for cells in given.cells:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CODES}
        for _ in range(given.repeats):
            for name in CODES:
                command = [sys.executable, "-m", "benchmarks.pyamg_baseline", "--one", name, "--cells", str(cells)]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
                runs[name].append(json.loads(done.stdout.splitlines()[-1]))
        for name, found in runs.items():
            pairs = list(zip(found, runs["by hand"], strict=True))
            ratios = {key: statistics.median(a[key] / b[key] for a, b in pairs) for key in ("seconds", "user", "bytes")}
            last, middle = found[-1], {key: statistics.median(r[key] for r in found) for key in ("seconds", "user")}
            print(
                f"{cells}^3 {name:>9}: J {last['objective']:.9e}, {last['iterations']} iterations, {last['solves']} "
                f"solves, {middle['seconds']:.1f} s ({ratios['seconds']:.2f}), user {middle['user']:.1f} s "
                f"({ratios['user']:.2f}), {1e-9 * last['bytes']:.2f} GB ({ratios['bytes']:.2f})",
                flush=True,
            )
        values = [found[-1]["objective"] for found in runs.values()]
        agreed &= abs(values[0] - values[1]) <= 1e-6 * abs(values[0])
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
