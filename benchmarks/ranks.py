"""Two ranks that share scenarios against one process: `python -m benchmarks.ranks [cells [turns]]`.

`robust_poisson_3d.yaml` on cells^3 (20) cells, with all scenarios at once and with growing batches, and with one thread
for each process. Both run in turns (3), and medians are compared. The output has the seconds of a run with its set-up,
the seconds of the processors from the start to the end of Python, and the bytes that ranks exchange. The exit code is 1
if two ranks take more than 0.65 of the time of one.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROBLEM = Path(__file__).parents[1] / "problems" / "robust_poisson_3d.yaml"
BAR = 0.65


def run(folder: Path, settings: dict[str, Any], ranks: int) -> dict[str, Any]:
    """The summary of one run, with the seconds of the processors of all its processes."""
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "nhgd_pde", "solve", str(PROBLEM), *sets, "--output", str(folder)]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    before = _processor()
    subprocess.run(
        [*command, "--ranks", str(ranks), "-q"], env={**os.environ, **threads}, check=True, stdout=subprocess.DEVNULL
    )
    return {**json.loads((folder / "summary.json").read_text()), "processor": _processor() - before}


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(parent: Path, settings: dict[str, Any], turns: int) -> float:
    """Prints one comparison and returns the ratio of the times of two ranks and of one."""
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for k in range(turns):
        for ranks in found:
            found[ranks].append(run(parent / f"{ranks}-{k}", settings, ranks))
    one, two = found[1][0], found[2][0]
    seconds, busy = (
        {ranks: statistics.median(each[name] for each in runs) for ranks, runs in found.items()}
        for name in ("seconds", "processor")
    )
    for ranks in found:
        print(f"  {ranks} rank{'s' * (ranks - 1)}   {seconds[ranks]:7.2f} s; processors {busy[ranks]:7.2f} s")
    ratio = seconds[2] / seconds[1]
    print(f"  ratio {ratio:.2f} (bar {BAR}); of processor seconds a rank {busy[2] / 2 / busy[1]:.2f}")
    told = two["ranks"]
    print(
        f"  {told['bytes_an_evaluation'] / 1e3:.0f} kB an evaluation, "
        f"at most {told['bytes_a_sweep'] / 1e3:.0f} kB a sweep, "
        f"{told['bytes_of_values'] / 1e3:.0f} kB of values in all; waited {told['seconds_waited']:.2f} s"
    )
    print(f"  relative difference of the objectives {abs(one['objective'] / two['objective'] - 1.0):.0e}")
    return ratio


def main() -> int:
    cells, turns = (int(text) for text in (*sys.argv[1:], *("20", "3")[len(sys.argv) - 1 :]))
    worst = 0.0
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as parent:
        for strategy in ("all", "growing"):
            print(f"strategy {strategy}, {cells}^3 cells:")
            settings = {"mesh.cells": [cells] * 3, "scenarios.strategy": strategy, "output.every": 0}
            worst = max(worst, compare(Path(parent) / strategy, settings, turns))
    return 0 if worst <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
