"""nhgd-pde against the hand-written SciPy solver on Poisson control, side by side.

Each solve is a fresh process; the two take turns, so that a drifting machine slows both. Seconds are those of the
solve itself: mesh, assembly, factorisation and optimisation, for nhgd-pde reading and checking the problem file too;
imports and the writing of fields are left out on both sides. The ratio is the median of the ratios of the turns.

    python benchmarks/poisson_control.py [N ...] [--repeats R]

Exits with 1 if a solve does not converge, or at n = 256 takes more than three times the seconds of the opponent or
more than 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_BASELINE = """
import json, sys
from benchmarks.scipy_baseline import solve
r = solve(int(sys.argv[1]))
print(json.dumps(dict(objective=r.objective, iterations=r.iterations, solves=r.stiffness_solves,
                      seconds=r.seconds, memory=r.peak_memory_bytes, status="converged" if r.converged else "stopped")))
"""

_OURS = """
import json, sys
import nhgd_pde as nhgd
n = int(sys.argv[1])
overrides = {"mesh.cells": [n, n], "method": sys.argv[2]}
s = nhgd.solve(nhgd.load("problems/poisson_control.yaml", overrides))
print(json.dumps(dict(objective=s.objective, iterations=s.stats["outer_iterations"],
                      solves=s.stats["solves"]["solves"], seconds=s.stats["seconds"],
                      memory=s.stats["peak_memory_bytes"], status=s.status)))
"""


def run(program: str, *arguments: str) -> dict[str, float]:
    """Runs one solve in a separate process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(n: int, repeats: int) -> list[dict[str, object]]:
    """One row for each solver: medians over the repeats, and the ratio of the seconds to the baseline."""
    programs = {
        "SciPy by hand": (_BASELINE, str(n)),
        "nhgd": (_OURS, str(n), "nhgd"),
        "adjoint": (_OURS, str(n), "adjoint"),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            runs[name].append(run(*program))
    rows = []
    for name, results in runs.items():
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(results, runs["SciPy by hand"], strict=True)]
        last = results[-1]
        rows.append(
            {
                "n": n,
                "solver": name,
                "status": last["status"],
                "objective": f"{last['objective']:.9e}",
                "iterations": int(last["iterations"]),
                "solves": int(last["solves"]),
                "seconds": f"{statistics.median(r['seconds'] for r in results):.3f}",
                "ratio": f"{statistics.median(ratios):.2f}",
                "peak MB": f"{max(r['memory'] for r in results) / 1e6:.0f}",
            }
        )
    return rows


def misses(row: dict[str, object]) -> list[str]:
    """The requirements that a row does not meet."""
    name = f"{row['solver']} at n = {row['n']}"
    found = [] if row["status"] == "converged" else [f"{name}: {row['status']}"]
    if row["n"] == 256 and float(str(row["ratio"])) > 3.0:
        found.append(f"{name}: {row['ratio']} times the seconds of the opponent, expected at most 3")
    if row["n"] == 256 and float(str(row["peak MB"])) > 2147:
        found.append(f"{name}: {row['peak MB']} MB, expected at most 2 GiB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    header: list[str] = []
    missed: list[str] = []
    for n in arguments.sizes:
        for row in compare(n, arguments.repeats):
            if not header:
                header = list(row)
                print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
            print("| " + " | ".join(str(row[name]) for name in header) + " |", flush=True)
            missed += misses(row)
    if missed:
        sys.exit("; ".join(missed))


if __name__ == "__main__":
    main()
