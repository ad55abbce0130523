"""The memory of one evaluation of objective and gradient, by the number of time steps; each in a process of its own.

    python -m benchmarks.forward_memory             # the table of docs/forward_mode.md

Four numbers: what the process takes at its peak; the same beyond what it takes once the libraries are loaded and a
problem of few steps has been evaluated; what it has kept at the end, with the holes in the heap given back; and the
time of an evaluation.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

EQUATIONS: dict[str, dict[str, Any]] = {
    "heat": {"kind": "heat", "conductivity": 0.1, "boundary": {"all": {"dirichlet": 0}}},
    "burgers": {"kind": "burgers", "viscosity": 0.05, "boundary": {"all": {"dirichlet": 0}}},
}


def problem(equation: str, method: str, steps: int, cells: int = 64) -> dict[str, Any]:
    """A control of ten windows of time."""
    return {
        "name": f"{equation}_{method}",
        "method": method,
        "mesh": {"kind": "interval", "cells": cells},
        "pde": EQUATIONS[equation],
        "time": {"end": 1, "steps": steps, "initial": "sin(pi*x)"},
        "control": {"kind": "source", "space": "time", "windows": 10, "gain": "sin(2*pi*x)"},
        "objective": [
            {"kind": "tracking", "target": "0.3*x*(1 - x)*exp(-t)"},
            {"kind": "regularisation", "weight": 0.01},
        ],
    }


def _measure(equation: str, method: str, steps: int) -> dict[str, float]:
    """Bytes and seconds of an evaluation in this process."""
    import ctypes
    import gc
    import time
    from pathlib import Path

    import torch

    import nhgd_pde as nhgd
    from nhgd_pde.engine.oracle import Accuracy

    def evaluated(count: int) -> float:
        loaded = nhgd.load(problem(equation, method, count))
        u, v = loaded.pde.start()
        oracle = loaded.method.oracle
        start = time.perf_counter()
        found, _ = oracle.evaluate(loaded.pde, v, oracle.init(loaded.pde, u, v), Accuracy(1e-8, 1e-8))
        assert found.finite
        return time.perf_counter() - start

    def resident(name: str = "VmRSS") -> float:
        # The peak in `getrusage` would include that of the process that has started this one.
        text = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024.0 * float(text.split(f"{name}:")[1].split()[0])

    torch.set_num_threads(1)

    def trimmed() -> float:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        return resident()

    evaluated(200)  # With more steps than are made at once, so that everything has been loaded and allocated once.
    before = trimmed()
    seconds = evaluated(steps)
    peak = resident("VmHWM")
    return {"grown": max(peak - before, 0.0), "peak": peak, "kept": trimmed() - before, "seconds": seconds}


def measured(equation: str, method: str, steps: int) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.forward_memory", equation, method, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        for case in (("heat", "fds"), ("heat", "adjoint"), ("burgers", "fds"), ("burgers", "adjoint")):
            for count in (1_000, 10_000):
                row = measured(*case, count)
                print(f"{' '.join(case):16} {count:7,} steps: peak {1e-6 * row['peak']:7.0f} MB", end="")
                print(f", grown by {1e-6 * row['grown']:7.1f} MB, kept {1e-6 * row['kept']:5.1f} MB", end="")
                print(f", {row['seconds']:6.1f} s", flush=True)
