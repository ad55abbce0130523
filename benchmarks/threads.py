"""A run alone and beside two busy processes, with its default threads: `python -m benchmarks.threads`.

    python -m benchmarks.threads [cells [turns]]

`poisson_control.yaml` on cells^2 (512) cells runs in turns (3) of each, and the medians of the seconds of whole
processes are compared. The number of threads is the default without OMP_NUM_THREADS. The exit code is 1 if the run
beside busy processes takes more than 2.2 times as long.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .busy import busy_processes

PROBLEM = Path(__file__).resolve().parents[1] / "problems" / "poisson_control.yaml"
BAR = 2.2
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")


def seconds(cells: int, folder: str) -> float:
    """The seconds of one run, from the start of Python to its end."""
    environment = {name: value for name, value in os.environ.items() if name not in _LIMITS}
    command = [sys.executable, "-m", "nhgd_pde", "solve", str(PROBLEM), "--set", f"mesh.cells=[{cells},{cells}]"]
    start = time.monotonic()
    subprocess.run([*command, "--output", folder, "-q"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def main() -> int:
    cells, turns = (int(text) for text in (*sys.argv[1:], *("512", "3")[len(sys.argv) - 1 :]))
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    alone, beside = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(turns):
            alone.append(seconds(cells, folder))
            with busy_processes(2):
                beside.append(seconds(cells, folder))
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"{cells} x {cells} cells: alone {statistics.median(alone):.1f} s, beside two busy processes ", end="")
    print(f"{statistics.median(beside):.1f} s; ratio {ratio:.2f} (bar {BAR})")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
