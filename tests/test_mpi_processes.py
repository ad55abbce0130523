"""A problem on two processes of mpirun, whose linear systems PETSc shares between them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import nhgd_pde as nhgd

MISSING = [name for name in ("petsc4py", "mpi4py") if importlib.util.find_spec(name) is None]
MISSING += [] if shutil.which("mpirun") else ["mpirun"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not tested: {', '.join(MISSING)} not there")

ROOT = Path(__file__).parents[1]
MPIRUN = ["mpirun", "-n", "2", *(["--oversubscribe"] if (os.cpu_count() or 1) < 2 else [])]
# In a container tests may run as root.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}
SECONDS = 300


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*MPIRUN, sys.executable, "-m", "nhgd_pde", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=ENVIRONMENT, cwd=ROOT)


def settings(values: dict[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


CASES: dict[str, dict[str, Any]] = {
    "poisson_control": {"mesh.cells": [20, 20]},
    "poisson_control_3d": {"mesh.cells": [6, 6, 6]},
    # Its usual goal leaves an error of 1e-7 in the objective.
    "elastic_control": {"mesh.cells": [12, 4], "outer.rtol": 1e-9},
    "advection_control": {"mesh.cells": [12, 12]},
    "stokes_control": {"mesh.cells": [6, 6]},
    "heat_control": {"mesh.cells": 12, "time.steps": 5},
}


@pytest.mark.parametrize(
    "name", [next(iter(CASES)), *(pytest.param(each, marks=pytest.mark.slow) for each in list(CASES)[1:])]
)
def test_two_processes_find_the_same_optimum(name: str, tmp_path: Path) -> None:
    file = ROOT / "problems" / f"{name}.yaml"
    usual = nhgd.solve(nhgd.load(file, CASES[name]))
    done = run(
        "solve", str(file), *settings({**CASES[name], "solver.kind": "petsc"}), "--output", str(tmp_path / "run")
    )
    assert done.returncode == 0, done.stderr
    # One process alone speaks and writes.
    assert done.stdout.count("converged: ") == 1 and "; petsc; " in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == usual.status == "converged"
    assert summary["objective"] == pytest.approx(usual.objective, rel=1e-8)
    assert (tmp_path / "run" / "final.vtu").exists()


def test_iterations_do_not_depend_on_the_number_of_processes() -> None:
    """The same hierarchy up to aggregates at the border between the processes, and half of the matrix on each."""
    script = """
import torch
from scipy.sparse.linalg import spsolve
from test_multigrid import DEFINITE, laplacian, random
from nhgd_pde.linalg.solvers.base import LinearSolver
from nhgd_pde.linalg.solvers.petsc import PETSc
from nhgd_pde.linalg.solvers.petsc_team import leading
with leading():
    matrix = laplacian(64, 64)
    found = LinearSolver(PETSc(), DEFINITE).prepare(matrix, True)
    b = random(3, matrix.shape[0])
    x = found.solve(b)
    exact = torch.from_numpy(spsolve(matrix.tocsc(), b.numpy().T).T)
    print(found.iterations, found.bytes, float((x - exact).abs().max() / exact.abs().max()))
"""
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    found = []
    for launcher in ([], MPIRUN):
        command = [*launcher, sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=True)
        found.append([float(word) for word in done.stdout.split()])
    (alone, bytes_alone, error_alone), (together, bytes_together, error_together) = found
    assert max(error_alone, error_together) < 1e-8
    assert together <= 1.3 * alone
    assert bytes_together == pytest.approx(bytes_alone, rel=0.2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"solver.kind": "superlu"},
            "expected solver.kind petsc, which shares its work among the 2 processes of mpirun",
        ),
        ({"solver.kid": "petsc"}, "solver.kid: unknown key"),
        ({"solver.kind": "petsc", "mesh.cells": 0}, "mesh.cells"),
    ],
)
def test_mistakes_are_told_once(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    done = run("solve", "problems/poisson_control.yaml", *settings(values), "--output", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.count(message) == 1
    assert not (tmp_path / "run").exists()


def test_options_that_petsc_refuses_end_the_run_with_its_words(tmp_path: Path) -> None:
    values = {"mesh.cells": [8, 8], "solver.kind": "petsc", "solver.options": "-pc_type no_such_thing"}
    done = run("solve", "problems/poisson_control.yaml", *settings(values), "--output", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "no_such_thing" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the first process is found by /proc")
def test_a_signal_to_the_first_process_ends_all_and_the_run_can_go_on(tmp_path: Path) -> None:
    values = {"mesh.cells": [16, 16], "solver.kind": "petsc", "outer.rtol": 1e-300, "outer.iterations": 100000}
    values |= {"outer.method": "gradient", "output.every": 1}
    command = ["solve", "problems/poisson_control.yaml", *settings(values), "--output", str(tmp_path / "run")]
    launched = [*MPIRUN, sys.executable, "-m", "nhgd_pde", *command]
    pipe = subprocess.PIPE
    with subprocess.Popen(launched, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT, cwd=ROOT) as started:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not (tmp_path / "run" / "checkpoint.pt").exists():
            assert started.poll() is None
            time.sleep(0.05)
        os.kill(first_process(str(tmp_path)), signal.SIGTERM)
        started.communicate(timeout=SECONDS)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "interrupted"
    values["outer.iterations"] = summary["outer_iterations"] + 2
    command = ["solve", "problems/poisson_control.yaml", *settings(values), "--output", str(tmp_path / "run")]
    again = run(*command, "--resume")
    assert "Traceback" not in again.stderr, again.stderr
    resumed = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert resumed["status"] == "stopped" and resumed["outer_iterations"] == values["outer.iterations"]
    assert resumed["objective"] <= summary["objective"]


def first_process(word: str) -> int:
    """The number that the system has given to the first process of the MPI run with this word in its command."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            own = (folder / "environ").read_bytes().split(b"\0")
            if b"OMPI_COMM_WORLD_RANK=0" in own and word.encode() in (folder / "cmdline").read_bytes():
                return int(folder.name)
    raise AssertionError("the first process has ended")
