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
from pathlib import Path
from typing import Any

import pytest

import nhgd_pde as nhgd
from nhgd_pde.linalg.solvers.petsc import PETSc

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
    "elastic_control": {"mesh.cells": [12, 4]},
    "advection_control": {"mesh.cells": [12, 12]},
    "stokes_control": {"mesh.cells": [6, 6]},
    "heat_control": {"mesh.cells": [8, 8], "time.steps": 5},
}


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.slow] * (number > 0)) for number, each in enumerate(CASES)]
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
from test_multigrid import DEFINITE, laplacian, random
from nhgd_pde.linalg.solvers.base import LinearSolver
from nhgd_pde.linalg.solvers.petsc import PETSc
from nhgd_pde.linalg.solvers.petsc_team import leading
with leading():
    matrix = laplacian(64, 64)
    found = LinearSolver(PETSc(), DEFINITE).prepare(matrix, True)
    b = random(3, matrix.shape[0])
    x = found.solve(b)
    exact = torch.from_numpy(__import__("scipy.sparse.linalg").sparse.linalg.spsolve(matrix.tocsc(), b.numpy().T).T)
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


def test_a_signal_to_the_first_process_ends_all_and_the_run_can_go_on(tmp_path: Path) -> None:
    values = {"mesh.cells": [16, 16], "solver.kind": "petsc", "outer.rtol": 1e-300, "outer.iterations": 100000}
    values |= {"outer.method": "gradient", "output.every": 1}
    command = ["solve", "problems/poisson_control.yaml", *settings(values), "--output", str(tmp_path / "run")]
    with subprocess.Popen(
        [*MPIRUN, sys.executable, "-m", "nhgd_pde", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    ) as started:
        lock = None
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not (tmp_path / "run" / "checkpoint.pt").exists():
            assert started.poll() is None, started.stderr.read() if started.stderr else ""
            time.sleep(0.05)
        for process in Path("/proc").glob("[0-9]*/environ"):
            try:
                text = process.read_bytes()
                words = (process.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if b"OMPI_COMM_WORLD_RANK=0" in text and str(tmp_path).encode() in words:
                lock = int(process.parent.name)
        assert lock is not None
        os.kill(lock, signal.SIGTERM)
        started.communicate(timeout=SECONDS)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "interrupted"
    values["outer.iterations"] = summary["outer_iterations"] + 2
    assert PETSc.library.found()
