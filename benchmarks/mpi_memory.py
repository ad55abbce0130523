"""The memory of every process of an MPI run: `python -m benchmarks.mpi_memory`.

    python -m benchmarks.mpi_memory [processes [cells ...]]

`poisson_control_3d.yaml` is solved with `solver.kind: petsc` by that many processes (2) on meshes of cells^3 (12 24 32)
cells. The table has the largest resident memory of every process, and its growth from one mesh to the next for each
unknown of the state that is added.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROBLEM = ROOT / "problems" / "poisson_control_3d.yaml"
_RANK = b"OMPI_COMM_WORLD_RANK="
_PAUSE = 0.05


def peaks(processes: int, cells: int, folder: Path) -> tuple[int, dict[int, int], float]:
    """The unknowns of the state, the largest resident bytes of every process, and the objective."""
    command = ["mpirun", "-n", str(processes), sys.executable, "-m", "nhgd_pde", "solve", str(PROBLEM), "-q"]
    for setting in (f"mesh.cells=[{cells},{cells},{cells}]", "solver.kind=petsc", "output.every=0"):
        command += ["--set", setting]
    path = folder / str(cells)
    with subprocess.Popen([*command, "--output", str(path)], stdout=subprocess.DEVNULL, cwd=ROOT) as started:
        found: dict[int, int] = {}
        while started.poll() is None:
            found |= resident(str(path))
            time.sleep(_PAUSE)
    if started.returncode:
        raise SystemExit(f"the run has ended with {started.returncode}")
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return summary["state_dofs"], found, summary["objective"]


def resident(word: str) -> dict[int, int]:
    """The largest resident bytes so far of the processes of the MPI run with this word in its command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        # Processes may end at any time.
        with suppress(OSError, ValueError, StopIteration):
            if word.encode() not in (process / "cmdline").read_bytes():
                continue
            variables = (process / "environ").read_bytes().split(b"\0")
            rank = int(next(each for each in variables if each.startswith(_RANK))[len(_RANK) :])
            status = dict(line.split(":", 1) for line in (process / "status").read_text(encoding="utf-8").splitlines())
            found[rank] = 1024 * int(status["VmHWM"].split()[0])
    return found


def main() -> int:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    meshes = [int(text) for text in sys.argv[2:]] or [12, 24, 32]
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("unknowns   " + "".join(f"   process {rank}, MB (B/unknown)" for rank in range(processes)))
    before: tuple[int, dict[int, int]] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for cells in meshes:
            unknowns, found, objective = peaks(processes, cells, Path(folder))
            line = f"{unknowns:>8,}   "
            for rank in range(processes):
                growth = "" if before is None else f"({(found[rank] - before[1][rank]) / (unknowns - before[0]):,.0f})"
                line += f"{found[rank] / 1e6:>16,.0f} {growth:>11}"
            print(f"{line}   objective {objective:.10e}", flush=True)
            before = unknowns, found
    return 0


if __name__ == "__main__":
    sys.exit(main())
