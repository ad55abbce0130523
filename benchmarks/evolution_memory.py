"""Control of the initial temperature, 200 steps on 128 x 128 cells, with all states in memory and with limits.

    python -m benchmarks.evolution_memory           # the table of docs/evolutions.md, some minutes

Each run is a process of its own. Bytes: the peak of the process beyond what it takes once the libraries are loaded and
a small problem has been solved, and the states that are kept at the same time. Seconds are those of the processor, for
one evaluation of objective and gradient after the first one, which makes the factors.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parents[1] / "problems"
FILES = {"heat_initial": {"mesh.cells": [128, 128], "time.steps": 200}}
LIMITS = ("null", "27 MB", "6 MB", "3 MB", "1 MB")


def _measure(name: str, limit: str) -> dict[str, Any]:
    import time

    import torch

    import nhgd_pde as nhgd
    from nhgd_pde.engine.oracle import Accuracy

    def resident(entry: str) -> float:
        text = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024.0 * float(text.split(f"{entry}:")[1].split()[0])

    torch.set_num_threads(1)
    memory = None if limit == "null" else limit
    nhgd.solve(nhgd.load(SHIPPED / f"{name}.yaml", {"mesh.cells": [4, 4], "time.steps": 4}))
    before = resident("VmRSS")
    loaded = nhgd.load(SHIPPED / f"{name}.yaml", {**FILES[name], "method": "adjoint", "time.memory": memory})
    pde, oracle = loaded.pde, loaded.method.oracle
    u, v = pde.start()
    found, state = oracle.evaluate(pde, v + 1.0, oracle.init(pde, u, v), Accuracy(1e-8, 1e-8))
    start = time.process_time()
    found, state = oracle.evaluate(pde, v + 2.0, state, Accuracy(1e-8, 1e-8))
    seconds = time.process_time() - start
    steps = loaded.file.spec.time.steps
    everything = 8.0 * (steps + 1) * pde.space.size
    return {
        "value": found.value,
        "norm": found.norm,
        "states": everything,
        "kept": getattr(state, "kept_bytes", everything),
        "forward": getattr(state, "forward_steps", steps) / steps,
        "grown": resident("VmHWM") - before,
        "seconds": seconds,
    }


def measured(name: str, limit: str) -> dict[str, Any]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.evolution_memory", name, limit]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_measure(*sys.argv[1:])))
    else:
        for file in FILES:
            for given in LIMITS:
                row = measured(file, given)
                print(
                    f"{file}, memory: {given:6}: kept {1e-6 * row['kept']:6.1f} of {1e-6 * row['states']:6.1f} MB",
                    end="",
                )
                print(f", {row['forward']:.3f} forward solves, grown by {1e-6 * row['grown']:6.0f} MB", end="")
                print(f", {row['seconds']:.1f} s, J {row['value']:.15e}, |gradient| {row['norm']:.12e}", flush=True)
