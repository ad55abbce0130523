"""nhgd-pde against the hand-written scikit-fem and SuperLU code on Poisson control, side by side.

The opponent is `benchmarks/scipy_baseline.py`: one factorisation, and conjugate gradients for the control to the same
relative gradient. Each solve is a fresh process with one thread; the two take turns, so that a drifting machine slows
both. Seconds go from reading the problem, or making the mesh, to the answer; imports and the writing of fields are left
out on both sides. `user` are the seconds of the processor in the same time, which other work on the machine changes
less. Ratios are medians of the ratios of the turns.

    python benchmarks/poisson_control.py [N ...] [--repeats R] [--large] [--adjoint]

Exits with 1 if a solve does not converge, if the objectives differ by more than 1e-8 of themselves, or if a ratio of
seconds or the memory is above its goal.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Cells a side -> largest ratio of the seconds to those of the opponent, and most bytes.
GOALS = {64: (2.0, 1e9), 256: (1.3, 2e9), 512: (1.2, 2e9), 1000: (1.2, 3e9)}
_AGREED = 1e-8

_BASELINE = """
import json, sys
from benchmarks.poisson_control import settled, user_seconds
from benchmarks.scipy_baseline import solve
settled()
before = user_seconds()
r = solve(int(sys.argv[1]))
print(json.dumps(dict(objective=r.objective, iterations=r.iterations, solves=r.stiffness_solves, seconds=r.seconds,
                      user=user_seconds() - before, memory=r.peak_memory_bytes,
                      status="converged" if r.converged else "stopped")))
"""

_OURS = """
import json, sys
import nhgd_pde as nhgd
from benchmarks.poisson_control import settled, user_seconds
load, solve, n = nhgd.load, nhgd.solve, int(sys.argv[1])
# The opponent interpolates the target and makes no estimate of the error of the mesh.
overrides = {"mesh.cells": [n, n], "method": sys.argv[2], "solver.kind": "superlu", "objective.0.target_at": "nodes",
             "output.estimate": "never"}
settled()
before = user_seconds()
s = solve(load("problems/poisson_control.yaml", overrides))
print(json.dumps(dict(objective=s.objective, iterations=s.stats["outer_iterations"],
                      solves=s.stats["solves"]["solves"], seconds=s.stats["seconds"], user=user_seconds() - before,
                      memory=s.stats["peak_memory_bytes"], status=s.status)))
"""


def settled() -> None:
    """Collects the garbage of the imports, which belongs to them and would be collected at some moment of the solve."""
    gc.collect()
    gc.freeze()


def user_seconds() -> float:
    """Seconds that the processor has worked for this process."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def run(program: str, *arguments: str) -> dict[str, float]:
    """Runs one solve in a separate process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(n: int, repeats: int, methods: list[str]) -> list[dict[str, object]]:
    """One row for each solver: medians over the repeats, and the ratios to the opponent."""
    programs = {"by hand": (_BASELINE, str(n)), **{name: (_OURS, str(n), name) for name in methods}}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            runs[name].append(run(*program))
    rows = []
    for name, results in runs.items():
        pairs = list(zip(results, runs["by hand"], strict=True))
        last = results[-1]
        row: dict[str, object] = {"n": n, "solver": name, "status": last["status"]}
        row |= {"objective": f"{last['objective']:.9e}", "iterations": int(last["iterations"])}
        row["solves"] = int(last["solves"])
        for key in ("seconds", "user"):
            row[key] = f"{statistics.median(r[key] for r in results):.3f}"
            row[f"ratio of {key}"] = f"{statistics.median(a[key] / b[key] for a, b in pairs):.2f}"
        row["peak MB"] = f"{max(r['memory'] for r in results) / 1e6:.0f}"
        rows.append(row)
    return rows


def misses(row: dict[str, object], opponent: dict[str, object]) -> list[str]:
    """The requirements that a row does not meet."""
    name = f"{row['solver']} at n = {row['n']}"
    found = [] if row["status"] == "converged" else [f"{name}: {row['status']}"]
    objectives = float(str(row["objective"])), float(str(opponent["objective"]))
    if abs(objectives[0] - objectives[1]) > _AGREED * objectives[1]:
        found.append(f"{name}: objective {objectives[0]}, the opponent's is {objectives[1]}")
    most, memory = GOALS.get(int(str(row["n"])), (float("inf"), float("inf")))
    if float(str(row["ratio of seconds"])) > most:
        found.append(f"{name}: {row['ratio of seconds']} times the seconds of the opponent, expected at most {most}")
    if float(str(row["peak MB"])) > memory / 1e6:
        found.append(f"{name}: {row['peak MB']} MB, expected at most {memory / 1e6:.0f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[64, 256, 512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="1000 x 1000 cells too, which take half a minute a solve")
    parser.add_argument("--adjoint", action="store_true", help="the method adjoint too")
    arguments = parser.parse_args()
    sizes = [*arguments.sizes, *([1000] if arguments.large else [])]
    methods = ["nhgd", *(["adjoint"] if arguments.adjoint else [])]
    header: list[str] = []
    missed: list[str] = []
    for n in sizes:
        rows = compare(n, arguments.repeats, methods)
        for row in rows:
            if not header:
                header = list(row)
                print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
            print("| " + " | ".join(str(row[name]) for name in header) + " |", flush=True)
            missed += misses(row, rows[0])
    if missed:
        sys.exit("; ".join(missed))


if __name__ == "__main__":
    main()
