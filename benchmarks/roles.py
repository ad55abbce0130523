"""Two roles in two processes against one process: `python -m benchmarks.roles [cells [tests [steps]]]`.

Sampled runs with a dense inverse on a mesh on which both roles have about the same work: with natural-gradient steps,
each of which waits for a direction from the curvature role, and with the stochastic gradient steps of the paper, which
do not wait. The output has the seconds of a run in one process with one thread and with one thread for each core, and
of two roles with one thread each, then the share of time in which each role is busy. The exit code is 1 if two roles
take more than 0.6 of the time of one process with one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROBLEM = Path(__file__).parents[1] / "problems" / "poisson_control.yaml"
BAR = 0.6
TURNS = 3


def run(folder: Path, settings: dict[str, Any], threads: int, *options: str) -> dict[str, Any]:
    """The summary of one run."""
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "nhgd_pde", "solve", str(PROBLEM), *sets, "--output", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    # Only some linear algebra libraries use the number of threads of torch.
    environment["OPENBLAS_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
    subprocess.run([*command, "-q"], env=environment, check=False, stdout=subprocess.DEVNULL)
    return json.loads((folder / "summary.json").read_text())


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(runs, key=lambda summary: summary["seconds"])[len(runs) // 2]


def compare(parent: Path, settings: dict[str, Any]) -> float:
    """Prints one comparison and returns the ratio of the times of two roles and of one process with one thread."""
    cores = os.cpu_count() or 1
    turns: list[list[dict[str, Any]]] = [[], [], []]
    for k in range(TURNS):
        turns[0].append(run(parent / f"one{k}", settings, 1))
        turns[1].append(run(parent / f"all{k}", settings, cores))
        turns[2].append(run(parent / f"two{k}", settings, 1, "--roles", "2"))
    one, threaded, two = (median(each) for each in turns)
    base, total, roles = one["seconds"], two["seconds"], two["roles"]
    print(f"  one process, 1 thread     {base:6.2f} s")
    print(f"  one process, {cores} threads    {threaded['seconds']:6.2f} s   {threaded['seconds'] / base:.2f}")
    print(f"  two roles, 1 thread each  {total:6.2f} s   {total / base:.2f}  (bar {BAR})")
    waited, busy = roles["seconds_waited"] / total, roles["seconds_curvature"] / total
    print(f"  inner role busy {1 - waited:.0%}, idle {waited:.0%}; curvature role busy {busy:.0%}, idle {1 - busy:.0%}")
    print(
        f"  {roles['bytes_sent'] / 1e6:.0f} MB sent; the inverse, never sent, is {8e-6 * two['state_dofs'] ** 2:.0f} MB"
    )
    print(f"  relative difference of the objectives {abs(one['objective'] / two['objective'] - 1.0):.0e}")
    return total / base


def main() -> int:
    cells, tests, steps = (int(text) for text in [*sys.argv[1:], *("39", "128", "40")[len(sys.argv) - 1 :]])
    settings = {
        "mesh.cells": f"[{cells},{cells}]",
        "inner.model": "residual",
        "inner.tests": tests,
        "inner.steps": steps,
        "inner.tolerance": 1e-14,  # With this tolerance every loop takes all its steps.
        "curvature.kind": "dense",
        "hypergradient.refine": "off",
        "outer.method": "gradient",
        "outer.step": 100,
        "outer.iterations": 3,
        "output.every": 0,
        "output.checkpoint": 0,
    }
    ratios = []
    with tempfile.TemporaryDirectory() as parent:
        for name, more in (("natural", {}), ("sgd", {"inner.optimiser": "sgd", "inner.step": 0.05})):
            unknowns = (cells - 1) ** 2
            print(f"{name} steps: d = {unknowns:,}, {tests} tests a batch, {steps} steps a loop, medians of {TURNS}")
            ratios.append(compare(Path(parent) / name, {**settings, **more}))
    return 0 if max(ratios) <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
