"""Two roles in two processes against one process: `python -m benchmarks.roles [cells [tests [steps]]]`.

A sampled run with a dense inverse, whose mesh is chosen so that both roles have about the same to do. Prints the
seconds of a run in one process with one thread and with as many as there are cores, and of two roles with one
thread each, then how busy each role was. Ends with exit code 1 where two roles take over 0.6 of the time of one
process with one thread.
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


def run(folder: Path, cells: int, tests: int, steps: int, threads: int, *options: str) -> dict[str, Any]:
    """summary.json of one run."""
    settings = {
        "mesh.cells": f"[{cells},{cells}]",
        "inner.model": "residual",
        "inner.tests": tests,
        "inner.steps": steps,
        "inner.tolerance": 1e-14,  # so that every loop takes all its steps
        "curvature.kind": "dense",
        "curvature.prior": "identity",
        "hypergradient.refine": "off",
        "outer.iterations": 3,
        "output.every": 0,
        "output.checkpoint": 0,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "nhgd_pde", "solve", str(PROBLEM), *sets, "--output", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    # Only some linear algebra libraries take the number of threads from torch.
    environment["OPENBLAS_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
    subprocess.run([*command, "-q"], env=environment, check=False, stdout=subprocess.DEVNULL)
    return json.loads((folder / "summary.json").read_text())


def main() -> int:
    cells, tests, steps = (int(a) for a in [*sys.argv[1:], *("48", "64", "30")[len(sys.argv) - 1 :]])
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent)
        two = [run(path / f"two{k}", cells, tests, steps, 1, "--roles", "2") for k in range(3)]
        one = [run(path / f"one{k}", cells, tests, steps, 1) for k in range(3)]
        all_threads = [run(path / f"all{k}", cells, tests, steps, cores) for k in range(3)]
    medians = [sorted(each, key=lambda s: s["seconds"])[1] for each in (one, all_threads, two)]
    seconds = [each["seconds"] for each in medians]
    d = medians[0]["state_dofs"]
    print(f"d = {d:,}, {tests} tests a batch, {steps} steps a loop, 4 evaluations; medians of 3, whole runs")
    print(f"one process, 1 thread    {seconds[0]:6.2f} s")
    print(f"one process, {cores} threads   {seconds[1]:6.2f} s   {seconds[1] / seconds[0]:.2f}")
    print(f"two roles, 1 thread each {seconds[2]:6.2f} s   {seconds[2] / seconds[0]:.2f}  (bar {BAR})")
    roles = medians[2]["roles"]
    inner = seconds[2] - roles["seconds_waited"]
    print(
        f"of these: inner role busy {inner / seconds[2]:.0%}, idle {roles['seconds_waited'] / seconds[2]:.0%}; "
        f"curvature role busy {roles['seconds_curvature'] / seconds[2]:.0%}, "
        f"idle {1 - roles['seconds_curvature'] / seconds[2]:.0%}; "
        f"{roles['bytes_sent'] / 1e6:.0f} MB sent, the inverse is {8e-6 * d * d:.0f} MB"
    )
    same = abs(medians[0]["objective"] / medians[2]["objective"] - 1.0)
    print(f"relative difference of the objectives {same:.0e}")
    return 0 if seconds[2] <= BAR * seconds[0] else 1


if __name__ == "__main__":
    sys.exit(main())
