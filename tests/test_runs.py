"""Runs and their folders: interrupted, killed, saved, and read by VTK."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import meshio
import numpy as np
import pytest

import nhgd_pde as nhgd
from nhgd_pde.output.field_layout import pictured
from nhgd_pde.output.result_files import RESULTS, Result
from nhgd_pde.output.run_folder import RunFolder, read_history
from problems import BASE

ROOT = Path(__file__).resolve().parent.parent

# A long run: the gradient method with a small constant step.
SLOW = [
    sys.executable, "-m", "nhgd_pde", "solve", "problems/poisson_control.yaml",
    "--set", "mesh.cells=[32, 32]", "--set", "outer.method=gradient", "--set", "outer.step=1.0",
    "--set", "outer.iterations=100000", "--set", "output.every=1",
]  # fmt: skip


def start(folder: Path, rows: int) -> subprocess.Popen[str]:
    """Start a long run and wait until it has written some outer iterations."""
    process = subprocess.Popen([*SLOW, "--output", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60.0
    history = folder / "history.csv"
    while not history.exists() or history.read_text().count("\n") < rows:
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline, "the run wrote nothing"
        time.sleep(0.02)
    return process


def series(folder: Path) -> list[Path]:
    """The files a .pvd index names."""
    tree = ElementTree.parse(folder / "fields" / "state.pvd")
    return [folder / "fields" / entry.attrib["file"] for entry in tree.iter("DataSet")]


def test_fields_have_the_names_and_values_of_the_solution(tmp_path: Path) -> None:
    problem = nhgd.load(ROOT / "problems/poisson_plate.yaml")
    solution = nhgd.solve(problem, output=tmp_path / "run")
    final = meshio.read(tmp_path / "run" / "final.vtu")
    assert set(final.point_data) == {"state", "control", "target", "adjoint", "sensitivity"}
    np.testing.assert_array_equal(final.point_data["state"], solution.state[0])
    np.testing.assert_array_equal(
        final.point_data["control"], problem.pde.control.parts[0].on_mesh(solution.control)[0]
    )
    files = series(tmp_path / "run")
    last = meshio.read(files[-1])
    np.testing.assert_array_equal(last.point_data["state"], solution.state[0])
    x = last.points[:, 0]
    assert np.abs(last.point_data["state"][np.isclose(np.abs(x), 1.0)]).max() == 0.0
    rows = read_history(tmp_path / "run")
    assert [row["iteration"] for row in rows] == list(range(solution.stats["outer_iterations"] + 1))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["objective"] == rows[-1]["objective"] == solution.objective
    assert summary["seconds_output"] > 0.0


def test_vtk_opens_the_series(tmp_path: Path) -> None:
    pyvista = pytest.importorskip("pyvista")
    nhgd.solve(nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [8, 8]}), output=tmp_path / "run")
    reader = pyvista.get_reader(str(tmp_path / "run" / "fields" / "state.pvd"))
    reader.set_active_time_value(reader.time_values[-1])
    assert {"state", "control"} <= set(reader.read()[0].point_data)


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ({"element": "P2", "mesh.cells": [6, 6]}, "triangle6"),
        ({"control.space": "P0", "mesh.cells": [6, 6]}, "triangle"),
        ({"mesh": {"kind": "interval", "cells": 20}, "objective.0.target": "sin(pi*x)"}, "line"),
    ],
)
def test_fields_of_other_elements_are_written_on_their_nodes(
    overrides: dict[str, object], kind: str, tmp_path: Path
) -> None:
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", overrides)
    solution = nhgd.solve(problem, output=tmp_path / "run")
    assert solution.status == "converged"
    final = meshio.read(tmp_path / "run" / "final.vtu")
    assert [block.type for block in final.cells] == [kind]
    assert len(final.points) == problem.pde.space.size
    if "control.space" in overrides:
        np.testing.assert_array_equal(final.cell_data["control"][0], solution.control)
    elif kind == "triangle6":
        # The P1 control on the midpoints of edges is the mean of its two ends.
        corners, nodes = final.points, final.cells[0].data
        control = final.point_data["control"]
        np.testing.assert_allclose(control[nodes[:, 3]], control[nodes[:, :2]].mean(axis=1), atol=1e-14)
        np.testing.assert_allclose(corners[nodes[:, 3]], corners[nodes[:, :2]].mean(axis=1), atol=1e-14)


def test_an_interrupted_run_leaves_a_complete_folder(tmp_path: Path) -> None:
    process = start(tmp_path / "run", rows=4)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "interrupted" in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    rows = read_history(tmp_path / "run")
    assert rows[-1]["iteration"] == summary["outer_iterations"]
    assert meshio.read(tmp_path / "run" / "final.vtu").point_data["state"].shape == (33 * 33,)


@pytest.mark.parametrize("rows", [3, 17])
def test_a_killed_run_leaves_a_readable_index(rows: int, tmp_path: Path) -> None:
    process = start(tmp_path / "run", rows)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    files = series(tmp_path / "run")
    assert len(files) >= rows - 2
    for file in files:
        assert np.isfinite(meshio.read(file).point_data["state"]).all()
    for row in read_history(tmp_path / "run")[:-1]:
        assert isinstance(row["objective"], float)


def test_another_file_of_a_result_takes_a_function_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULTS, "names.txt", lambda run, result: run.write_text("names.txt", str(names(result))))
    problem = nhgd.load({**BASE, "mesh": {"kind": "rectangle", "cells": [4, 4]}})
    solution = nhgd.solve(problem, output=tmp_path / "solved")
    solution.save(tmp_path / "saved")
    assert [(tmp_path / name / "names.txt").read_text() for name in ("solved", "saved")] == [str(names(solution))] * 2
    # A new run deletes the file, as all files of a result.
    with RunFolder.create(tmp_path / "solved", solution.problem_yaml):
        assert not (tmp_path / "solved" / "names.txt").exists()


def names(result: Result) -> list[str]:
    return sorted(result.fields()[1].point)


def test_save_and_plot(tmp_path: Path) -> None:
    solution = nhgd.solve(nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [8, 8]}))
    folder = solution.save(tmp_path / "saved")
    assert nhgd.solve(nhgd.load(folder / "problem.yaml")).objective == solution.objective
    assert len(read_history(folder)) == len(solution.history)
    solution.plot().savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- example: run by the tests -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problems").symlink_to(ROOT / "problems")
    names: dict[str, object] = {}
    exec(found.group(1), names)
    solution = names["solution"]
    assert isinstance(solution, nhgd.Solution)
    assert solution.status == "converged"
    assert (tmp_path / "outputs/weak_regularisation/final.vtu").exists()


def test_the_callback_gets_every_iteration_and_can_interrupt() -> None:
    seen: list[object] = []
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [16, 16]})
    solution = nhgd.solve(
        problem, callback=lambda row: seen.append(row["iteration"]), interrupted=lambda: len(seen) > 2
    )
    assert solution.status == "interrupted"
    assert seen == [0, 1, 2]


def test_the_same_seed_gives_the_same_numbers() -> None:
    overrides = {"mesh.cells": [8, 8], "outer.iterations": 3}
    first, second = (nhgd.solve(nhgd.load(ROOT / "problems/poisson_nhgd_paper.yaml", overrides)) for _ in range(2))
    other = nhgd.solve(nhgd.load(ROOT / "problems/poisson_nhgd_paper.yaml", {**overrides, "seed": 1}))
    assert first.objective == second.objective
    assert other.objective != first.objective


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_a_singular_equation_is_a_failed_run_with_a_sentence(method: str, tmp_path: Path) -> None:
    """Three cells, two unknowns: the stiffness of the mode (1, 1) is 1/h - 10.8 * 5 h / 6 = 0."""
    problem = {
        "name": "singular",
        "method": method,
        "mesh": {"kind": "interval", "cells": 3},
        "pde": {"kind": "poisson", "reaction": -10.8, "source": 1, "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": 1}, {"kind": "regularisation", "weight": 1}],
    }
    solution = nhgd.solve(nhgd.load(problem), output=tmp_path / "run")
    assert solution.status == "failed"
    assert solution.message.startswith("at the starting point: ")
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "failed"


def test_a_second_solve_of_a_problem_counts_only_its_own_work() -> None:
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [16, 16]})
    first, second = nhgd.solve(problem), nhgd.solve(problem)
    assert second.objective == first.objective
    assert second.stats["solves"]["residuals"] == first.stats["solves"]["residuals"]
    assert second.stats["solves"]["factorisations"] == 0


def test_a_picture_has_every_state_control_and_target() -> None:
    """The problems include a complex field, and several controls, whose fields have other names."""
    complex_field = {
        **copy.deepcopy(BASE),
        "pde": {"kind": "helmholtz", "wavenumber": 1, "boundary": {"all": {"dirichlet": 0}}},
        "control": [{"kind": "source", "space": "P0"}, {"kind": "source", "name": "other", "on": None}],
    }
    solution = nhgd.solve(nhgd.load(complex_field, {"outer.iterations": 1}))
    _, data = solution.fields()
    assert pictured(data) == (
        "state_real",
        "state_imag",
        "control_other",
        "control_source",
        "target_real",
        "target_imag",
    )


@pytest.mark.parametrize("asked", [2, 5, 9, 13])
@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_an_interrupted_line_search_resumes_bit_for_bit(method: str, asked: int, tmp_path: Path) -> None:
    """The first step is far too long and is shortened many times; every trial point has its own state."""
    boundary = {"all": {"dirichlet": 0}}
    problem = nhgd.load(
        {
            "name": "long",
            "mesh": {"kind": "rectangle", "cells": [8, 8]},
            "pde": {"kind": "semilinear", "nonlinearity": "-exp(u)", "source": 0, "boundary": boundary},
            "control": {"kind": "source"},
            "objective": [
                {"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)"},
                {"kind": "regularisation", "weight": 1e-4},
            ],
            "outer": {"method": "lbfgs", "step": 1e9},
            "method": method,
        }
    )
    questions = iter(range(asked))
    stopped = nhgd.solve(problem, output=tmp_path / "run", interrupted=lambda: next(questions, None) is None)
    assert stopped.status == "interrupted"
    resumed, whole = nhgd.solve(problem, output=tmp_path / "run", resume=True), nhgd.solve(problem)
    assert resumed.status == whole.status == "converged"
    assert resumed.stats["evaluations"] == whole.stats["evaluations"]
    assert (resumed.control == whole.control).all() and resumed.objective == whole.objective
