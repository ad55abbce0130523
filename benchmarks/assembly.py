"""Seconds and memory of setting up Poisson control, beside scikit-fem's own assembly; each in a process of its own.

    python -m benchmarks.assembly                 the unit cube with 63^3 cells: docs/benchmarks.md
    python -m benchmarks.assembly --cells 40      fewer cells
    python -m benchmarks.assembly --square        the unit square, by default with 1000^2 cells

scikit-fem's side makes mesh and basis and assembles stiffness, mass, load and the nodes of the boundary. Our side does
everything before the first linear solve: it reads the file, makes mesh and spaces, checks the file, and assembles
stiffness, control matrix, tracking and regularisation. Seconds are those of the processor, which other processes
disturb little. Bytes are the peak of each stage beyond what the process has once the libraries are loaded; what the
process keeps at the end stands beside them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("scikit-fem", "nhgd-pde")
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class Stages:
    """Measures one stage after the other.

    Attributes:
        found: name -> seconds of the processor, and the peak and the end of the memory beyond that at the beginning.
    """

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float, float]] = {}
        gc.collect()
        self._base = _memory("VmRSS")
        self._begin()

    def _begin(self) -> None:
        # The peak of the process becomes its memory now.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._start = _seconds()

    def end(self, name: str) -> None:
        """The end of a stage, and the begin of the next one."""
        seconds = _seconds() - self._start
        self.found[name] = seconds, _memory("VmHWM") - self._base, _memory("VmRSS") - self._base
        self._begin()


def _seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory(name: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024.0 * float(text.split(f"{name}:")[1].split()[0])


def _skfem(dim: int, cells: int) -> Stages:
    import numpy as np
    import skfem
    from skfem.models.poisson import laplace, mass, unit_load

    stages = Stages()
    kind, element = ((skfem.MeshTri, skfem.ElementTriP1), (skfem.MeshTet, skfem.ElementTetP1))[dim - 2]
    mesh = kind.init_tensor(*[np.linspace(0.0, 1.0, cells + 1)] * dim)
    stages.end("mesh")
    basis = skfem.Basis(mesh, element(), intorder=2)
    stages.end("basis")
    kept = [skfem.asm(laplace, basis), skfem.asm(mass, basis)]
    stages.end("matrices")
    kept += [skfem.asm(unit_load, basis), basis.get_dofs().all()]
    stages.end("load, boundary")
    assert len(kept) == 4
    return stages


def _ours(dim: int, cells: int) -> Stages:
    import torch

    from nhgd_pde.building.blueprint import Blueprint, blueprint_of
    from nhgd_pde.building.domains import build_domain
    from nhgd_pde.building.frame import Frame
    from nhgd_pde.problem_file.loading import read_problem

    name = "poisson_control" if dim == 2 else "poisson_control_3d"
    # Modules that are loaded when they are needed are not part of what is measured.
    blueprint_of(read_problem(ROOT / "problems" / f"{name}.yaml", {"mesh.cells": [4] * dim}))
    stages = Stages()
    file = read_problem(ROOT / "problems" / f"{name}.yaml", {"mesh.cells": [cells] * dim})
    stages.end("file")
    frame = Frame(file, build_domain(file), torch.device("cpu"))
    stages.end("mesh")
    assert frame.state.cells.size == (cells + 1) ** dim
    stages.end("spaces")
    frame.check()
    stages.end("checks, control")
    problem = Blueprint(frame).checked().nominal
    stages.end("matrices")
    assert problem.outer_size == (cells + 1) ** dim
    return stages


def measured(side: str, dim: int, cells: int) -> dict[str, tuple[float, float, float]]:
    """The stages of a side in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.assembly", "--side", side, "--cells", str(cells)]
    command += ["--square"] if dim == 2 else []
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **THREADS})
    found: dict[str, tuple[float, float, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _print_table(dim: int, cells: int, repeats: int) -> None:
    found = {side: [measured(side, dim, cells) for _ in range(repeats)] for side in SIDES}
    totals = {}
    print(f"{cells}^{dim} cells, {(cells + 1) ** dim:,} nodes: medians of {repeats} runs")
    for side, runs in found.items():
        print(f"\n{side:18} {'s':>7} {'peak MB':>9} {'kept MB':>9}")
        for stage in runs[0]:
            seconds, peak, kept = (statistics.median(run[stage][k] for run in runs) for k in range(3))
            print(f"{stage:18} {seconds:7.2f} {1e-6 * peak:9.0f} {1e-6 * kept:9.0f}")
        seconds = statistics.median(sum(stage[0] for stage in run.values()) for run in runs)
        peak = statistics.median(max(stage[1] for stage in run.values()) for run in runs)
        totals[side] = seconds, peak
        print(f"{'whole':18} {seconds:7.2f} {1e-6 * peak:9.0f}")
    ratios = [ours / theirs for ours, theirs in zip(totals["nhgd-pde"], totals["scikit-fem"], strict=True)]
    print(f"\nours over scikit-fem's: {ratios[0]:.2f} of the seconds, {ratios[1]:.2f} of the bytes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int)
    parser.add_argument("--square", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process")
    given = parser.parse_args()
    dim = 2 if given.square else 3
    cells = given.cells or (1000 if given.square else 63)
    if given.side is None:
        _print_table(dim, cells, given.repeats)
        return
    stages = (_skfem if given.side == "scikit-fem" else _ours)(dim, cells)
    # Memory that was allocated and given back is not counted as kept.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    print(json.dumps(stages.found))


if __name__ == "__main__":
    main()
