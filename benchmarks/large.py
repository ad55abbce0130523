"""Large problems, each in a process of its own: seconds, memory, work and cycles: `python -m benchmarks.large`.

    python -m benchmarks.large                          Poisson control in 3-D on four meshes, and the exponent of time
    python -m benchmarks.large --case elasticity        a cantilever with 300,000 unknowns
    python -m benchmarks.large --case stokes            a flow with up to a million unknowns
    python -m benchmarks.large --case topology          a cantilever of 100,000 cells, 50 iterations
    python -m benchmarks.large --cells 16 24            other meshes

`cycles` is the mean number of multigrid cycles of a solve. Seconds of user time are given beside those of the clock,
since they depend less on other processes.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

CANTILEVER: dict[str, Any] = {
    "name": "cantilever",
    "mesh": {"kind": "box", "size": [2, 1, 1]},
    "pde": {
        "kind": "elasticity",
        "young": 1.0,
        "poisson_ratio": 0.3,
        "boundary": {"left": {"dirichlet": [0, 0, 0]}},
    },
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": ["0", "0", "0.1*x**2"]},
        {"kind": "regularisation", "weight": 1e-4},
    ],
}
TOPOLOGY: dict[str, Any] = {
    "name": "cantilever_topology",
    "mesh": {"kind": "box", "size": [2, 1, 1], "cell": "hexahedron"},
    "pde": {
        "kind": "elasticity",
        "young": 1.0,
        "poisson_ratio": 0.3,
        "boundary": {
            "left": {"dirichlet": [0, 0, 0]},
            "right": {"neumann": ["0", "0", "where(z < 0.1, -1, 0)"]},
        },
    },
    "control": {"kind": "density", "initial": 0.3, "low": 1e-3, "penalty": 3, "filter_radius": 0.06, "space": "P0"},
    "objective": [{"kind": "compliance"}],
    "constraints": [{"kind": "volume", "fraction": 0.3}],
    "outer": {"method": "oc", "iterations": 50},
}


def problem_of(case: str, cells: int) -> tuple[Any, dict[str, Any]]:
    """The source of a problem, and its overrides."""
    if case == "poisson":
        return str(ROOT / "problems/poisson_control_3d.yaml"), {"mesh.cells": [cells] * 3}
    if case == "stokes":
        return str(ROOT / "problems/stokes_control.yaml"), {"mesh.cells": [cells] * 2, "solver.kind": "amg"}
    return {"elasticity": CANTILEVER, "topology": TOPOLOGY}[case], {"mesh.cells": [2 * cells, cells, cells]}


CASES = {"poisson": (24, 32, 48, 63), "elasticity": (18, 25, 36), "stokes": (64, 128, 333), "topology": (37,)}


def measured(case: str, cells: int) -> dict[str, Any]:
    """One run in this process."""
    import torch

    import nhgd_pde as nhgd
    from nhgd_pde.linalg.solvers.amg import MultigridCG
    from nhgd_pde.linalg.solvers.gmres import MultigridGMRES

    torch.set_num_threads(1)
    work = Work()
    for known in (MultigridCG, MultigridGMRES):
        _count(known, work)
    used, start = _user(), time.monotonic()
    source, overrides = problem_of(case, cells)
    # Estimates of the memory are for the largest factors that a matrix of this size may have.
    problem = nhgd.load(source, {**overrides, "devices.memory": 2e11})
    loaded = _user() - used
    solution = nhgd.solve(problem)
    stats = solution.stats
    return {
        "unknowns": stats["state_dofs"],
        "status": solution.status,
        "objective": solution.objective,
        "iterations": stats["outer_iterations"],
        "solves": stats["solves"]["solves"],
        "prepared": stats["solves"]["factorisations"],
        "cycles": work.cycles / work.solves if work.solves else math.nan,
        "load": loaded,
        "user": _user() - used,
        "seconds": time.monotonic() - start,
        "warnings": stats["warnings"],
        "bytes": 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


@dataclass
class Work:
    """Attributes:
    solves, cycles: number of right-hand sides of multigrid solvers, and of their cycles.
    """

    solves: int = 0
    cycles: int = 0


def _count(known: type, work: Work) -> None:
    """Let a class of solvers count its solves and cycles; the solvers themselves are not kept."""
    solve = known.solve_within  # type: ignore[attr-defined]

    def counted(self: Any, b: Any, rtol: float, transposed: bool) -> Any:
        before = self.cycles
        found = solve(self, b, rtol, transposed)
        # The solver of symmetric matrices works on all rows in one iteration.
        work.solves += 1 if known.__name__ == "MultigridCG" else len(b)
        work.cycles += self.cycles - before
        return found

    known.solve_within = counted  # type: ignore[attr-defined]


def _user() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--case", choices=CASES, default="poisson")
    parser.add_argument("--cells", type=int, nargs="*", help="cells along the shortest edge, one mesh for each number")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measured(given.case, given.one)))
        return 0
    print(
        f"{'cells':>6} {'unknowns':>10} {'objective':>16} {'iter.':>6} {'solves':>7} {'prepared':>9} {'cycles':>7}"
        f" {'load':>8} {'user':>8} {'clock':>8} {'GB':>6}  status"
    )
    rows = []
    for cells in given.cells or CASES[given.case]:
        command = [sys.executable, "-m", "benchmarks.large", "--case", given.case, "--one", str(cells)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{cells:6d} failed: {done.stderr[-500:]}", flush=True)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{cells:6d} {row['unknowns']:10,} {row['objective']:16.9e} {row['iterations']:6d} {row['solves']:7d}"
            f" {row['prepared']:9d} {row['cycles']:7.1f} {row['load']:8.1f} {row['user']:8.1f} {row['seconds']:8.1f}"
            f" {1e-9 * row['bytes']:6.2f}  {row['status']}",
            *row["warnings"],
            sep="\n       ",
            flush=True,
        )
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        power = math.log(last["user"] / first["user"]) / math.log(last["unknowns"] / first["unknowns"])
        print(f"user time grows with the unknowns to the power {power:.2f} from the first mesh to the last")
    return 0


if __name__ == "__main__":
    sys.exit(main())
