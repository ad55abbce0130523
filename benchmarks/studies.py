"""A study on one and on two processes: `python -m benchmarks.studies [RUNS] [CELLS]`.

Both are made on the same machine, one after the other, with one thread a process; what is compared is the time from the
command to its end, start of Python included. The rows have to be equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def content(runs: int, cells: int) -> dict[str, Any]:
    """A grid of weights."""
    return {
        "study": "weights",
        "problem": str(ROOT / "problems" / "poisson_control.yaml"),
        "kind": "grid",
        "vary": {"objective.1.weight": {"log": [1e-7, 1e-3, runs]}},
        "overrides": {"mesh.cells": [cells, cells]},
    }


def timed(file: Path, output: Path, processes: int) -> tuple[float, list[dict[str, Any]]]:
    """The seconds of a study, and its rows without those of the runs."""
    command = [sys.executable, "-m", "nhgd_pde", "study", str(file), "--output", str(output), "-q"]
    began = time.perf_counter()
    subprocess.run(
        [*command, "--processes", str(processes)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - began
    rows = json.loads((output / "study.json").read_text())["rows"]
    return seconds, [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def main(runs: int = 40, cells: int = 128) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "study.yaml").write_text(json.dumps(content(runs, cells)))
        one, rows = timed(folder / "study.yaml", folder / "one", 1)
        two, shared = timed(folder / "study.yaml", folder / "two", 2)
    equal = "equal rows" if rows == shared else "OTHER ROWS"
    print(f"{runs} runs of {cells} x {cells} cells, {equal}: {one:.1f} s on one process, {two:.1f} s on two")
    print(f"ratio {two / one:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
