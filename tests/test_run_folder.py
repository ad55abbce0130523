from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nhgd_pde.output.atomic import atomic_path
from nhgd_pde.output.fields import FieldData, Grid, read_vtu
from nhgd_pde.output.run_folder import HEADER, OutputError, RunFolder, read_history

GRID = Grid(np.array([[0.0], [1.0]]), np.array([[0, 1]]), "line")
PROBLEM = "name: demo\nseed: 0\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finished_run(path: Path) -> RunFolder:
    with RunFolder.create(path, PROBLEM) as run:
        for iteration in range(3):
            run.append_history({"iteration": iteration, "objective": 1 / (1 + iteration)})
            run.fields.add(iteration, float(iteration), GRID, FieldData({"u": np.zeros(2)}))
        run.log("started")
        with atomic_path(run.path / "checkpoint.pt") as temporary:
            temporary.write_bytes(b"checkpoint")
        run.write_final(GRID, FieldData({"u": np.ones(2)}))
        run.write_summary({"method": "nhgd", "status": "converged", "objective": 0.5})
    return run


def test_a_run_writes_the_files_of_the_contract(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "outputs" / "demo")
    assert run.path == tmp_path / "outputs" / "demo"
    assert contents(run.path).keys() == {
        "problem.yaml",
        "summary.json",
        "history.csv",
        "run.log",
        "checkpoint.pt",
        "final.vtu",
        "fields/state.pvd",
        "fields/state_00000.vtu",
        "fields/state_00001.vtu",
        "fields/state_00002.vtu",
    }
    assert (run.path / "problem.yaml").read_text() == HEADER + PROBLEM
    assert HEADER.startswith("#")
    assert np.array_equal(read_vtu(run.path / "final.vtu")[1].point["u"], [1, 1])


def test_a_new_run_clears_its_own_files_and_nothing_else(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    leftovers = [".final.vtu.0123456789ab.tmp", "fields/.state.pvd.0123456789ab.tmp"]
    leftovers.append("fields/.state_00003.vtu.0123456789ab.tmp")
    for name in leftovers:
        (tmp_path / name).write_text("half")
    theirs = ["notes.txt", "history.csv.bak", "figure.vtu", "fields/mine_00001.vtu", "fields/state_a.vtu"]
    theirs += ["fields/state_1.vtu", "fields/old.pvd", ".final.vtu.tmp", "deep/summary.json"]
    (tmp_path / "deep").mkdir()
    for name in theirs:
        (tmp_path / name).write_text(name)
    elsewhere = tmp_path.parent / "elsewhere.pt"
    elsewhere.write_text("kept")
    (run.path / "checkpoint.pt").unlink()
    (run.path / "checkpoint.pt").symlink_to(elsewhere)

    RunFolder.create(tmp_path, "name: second\n", overwrite=True).close()
    expected = {name: name.encode() for name in theirs}
    assert contents(tmp_path) == {**expected, "problem.yaml": (HEADER + "name: second\n").encode()}
    assert elsewhere.read_text() == "kept"


def test_a_solved_problem_file_keeps_one_header(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, HEADER + PROBLEM).close()
    assert (tmp_path / "problem.yaml").read_text() == HEADER + PROBLEM


def somebodys_home(path: Path) -> None:
    path.mkdir()
    (path / ".bashrc").write_text("alias")


def problem_of_a_person(path: Path) -> None:
    path.mkdir()
    (path / "problem.yaml").write_text(PROBLEM)


def problem_of_a_person_beside_a_run(path: Path) -> None:
    finished_run(path)
    (path / "problem.yaml").write_text(PROBLEM)


def summary_of_another_program(path: Path) -> None:
    path.mkdir()
    (path / "summary.json").write_text('{"score": 1}')


def summary_that_is_not_json(path: Path) -> None:
    path.mkdir()
    (path / "summary.json").write_text("{")


def folder_named_as_a_file(path: Path) -> None:
    finished_run(path)
    (path / "final.vtu").unlink()
    (path / "final.vtu").mkdir()
    (path / "final.vtu" / "precious").write_text("x")


def file_named_fields(path: Path) -> None:
    RunFolder.create(path, PROBLEM).close()
    (path / "fields").write_text("x")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (somebodys_home, r"found other files in it: \.bashrc"),
        (problem_of_a_person, r"found a problem\.yaml that no run wrote"),
        (problem_of_a_person_beside_a_run, r"found a problem\.yaml that no run wrote"),
        (summary_of_another_program, r"found other files in it: summary\.json"),
        (summary_that_is_not_json, r"found other files in it: summary\.json"),
        (folder_named_as_a_file, r"final\.vtu: expected a file, found a folder"),
        (file_named_fields, r"fields: expected a folder, found a file"),
    ],
)
def test_a_foreign_folder_is_refused_untouched(tmp_path: Path, prepare: Callable[[Path], object], message: str) -> None:
    folder = tmp_path / "there"
    prepare(folder)
    before = contents(folder)
    with pytest.raises(OutputError, match=message) as caught:
        RunFolder.create(folder, "name: new\n")
    assert str(folder) in str(caught.value)
    assert contents(folder) == before


def test_a_path_to_or_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="expected a folder or a new path, found a file"):
            RunFolder.create(path, PROBLEM)
    assert contents(tmp_path) == {"file": b"kept"}


def test_empty_and_incomplete_folders_are_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".problem.yaml.0123456789ab.tmp").write_text("name")
    (tmp_path / "summary").mkdir()
    (tmp_path / "summary" / "summary.json").write_text('{"method": "a", "status": "failed", "objective": null}')
    for name in ("empty", "killed", "summary"):
        RunFolder.create(tmp_path / name, PROBLEM).close()
        assert contents(tmp_path / name).keys() == {"problem.yaml"}


def test_summary_is_strict_json_in_the_order_given(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, PROBLEM) as run:
        run.write_summary(
            {
                "status": "stopped",
                "objective": float("nan"),
                "gradient_norm": np.float64("inf"),
                "bound": -np.inf,
                "state_dofs": np.int64(7),
                "converged": np.bool_(True),
                "history": np.array([1.0, np.nan]),
                "devices": {"inner": "cpu", "shape": (2, 3)},
                "path": Path("outputs") / "é",
                "nothing": None,
            }
        )
        text = (tmp_path / "summary.json").read_text(encoding="utf-8")

        def refuse(word: str) -> None:
            pytest.fail(f"not JSON: {word}")

        found = json.loads(text, parse_constant=refuse)
        assert found == {
            "status": "stopped",
            "objective": None,
            "gradient_norm": None,
            "bound": None,
            "state_dofs": 7,
            "converged": True,
            "history": [1.0, None],
            "devices": {"inner": "cpu", "shape": [2, 3]},
            "path": str(Path("outputs") / "é"),
            "nothing": None,
        }
        assert list(found)[:3] == ["status", "objective", "gradient_norm"]

        with pytest.raises(OutputError, match=r"summary\.json\.stats\.callback\[1\]: .* found function"):
            run.write_summary({"stats": {"callback": [0, refuse]}})
        assert (tmp_path / "summary.json").read_text(encoding="utf-8") == text


def test_summary_takes_torch_values(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with RunFolder.create(tmp_path, PROBLEM) as run:
        run.write_summary({"objective": torch.tensor(0.5), "v": torch.tensor([1.0, float("nan")])})
        run.append_history({"iteration": 0, "objective": torch.tensor(0.25, dtype=torch.float64)})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"objective": 0.5, "v": [1.0, None]}
    assert read_history(tmp_path) == [{"iteration": 0, "objective": 0.25}]


def test_history_has_every_digit_and_is_written_at_once(tmp_path: Path) -> None:
    rows: list[dict[str, float | int | str | None]] = [
        {"iteration": 0, "objective": 0.1 + 0.2, "error": 5e-324, "note": 'first, "quoted"', "adjoint": None},
        {"iteration": 1, "objective": -np.inf, "error": 1.0, "note": "é", "adjoint": np.float64(2.5)},
        {"adjoint": 3, "iteration": np.int64(2), "objective": 1e22, "error": 0.0, "note": "1_000"},  # type: ignore[dict-item]
    ]
    with RunFolder.create(tmp_path, PROBLEM) as run:
        for count, row in enumerate(rows, start=1):
            run.append_history(row)
            assert read_history(tmp_path / "history.csv") == rows[:count]
    lines = (tmp_path / "history.csv").read_bytes().split(b"\n")
    assert lines[0] == b"iteration,objective,error,note,adjoint"
    assert lines[1] == b'0,0.30000000000000004,5e-324,"first, ""quoted""",'
    assert len(lines) == 5
    assert lines[-1] == b""


def test_history_refuses_other_columns_and_values(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, PROBLEM) as run:
        for bad in ({}, {"iteration": 0, "objective": 1j}, {"iteration": 0, "objective": "two\nlines"}):
            with pytest.raises(OutputError, match=r"history\.csv"):
                run.append_history(bad)  # type: ignore[arg-type]
        assert not (tmp_path / "history.csv").exists()
        run.append_history({"iteration": 0, "objective": 1.0})
        with pytest.raises(OutputError, match="missing from the row: objective; not in the file: objectve"):
            run.append_history({"iteration": 1, "objectve": 1.0})
    assert read_history(tmp_path) == [{"iteration": 0, "objective": 1.0}]


def test_log_has_elapsed_seconds_on_every_line(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, PROBLEM) as run:
        run.log("one")
        time.sleep(0.05)
        run.log("two\nthree")
        lines = (tmp_path / "run.log").read_text().splitlines()
    matches = [re.fullmatch(r" +(\d+\.\d\d) s  (\w+)", line) for line in lines]
    assert [match and match[2] for match in matches] == ["one", "two", "three"]
    seconds = [float(match[1]) for match in matches if match]
    assert seconds[1] == seconds[2] >= seconds[0] + 0.04


def test_a_closed_folder_refuses_further_rows(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.close()
    fresh = RunFolder.resume(tmp_path)
    fresh.close()
    with pytest.raises(OutputError, match="closed"):
        fresh.append_history({"iteration": 3, "objective": 0.0})
    with pytest.raises(OutputError, match="closed"):
        fresh.log("late")


def test_resume_continues_from_the_checkpoint(tmp_path: Path) -> None:
    finished_run(tmp_path)
    with open(tmp_path / "history.csv", "a") as file:
        file.write("3,0.2")
    with RunFolder.resume(tmp_path, up_to=1) as run:
        assert run.fields.times == {0: 0.0, 1: 1.0}
        with pytest.raises(OutputError, match="columns"):
            run.append_history({"iteration": 2})
        run.append_history({"iteration": 2, "objective": 7.0})
        run.log("resumed")
    assert [row["iteration"] for row in read_history(tmp_path)] == [0, 1, 2]
    assert read_history(tmp_path)[2]["objective"] == 7.0
    assert (tmp_path / "run.log").read_text().count("\n") == 2
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"checkpoint"


def test_resume_without_a_limit_drops_only_the_incomplete_row(tmp_path: Path) -> None:
    finished_run(tmp_path)
    whole = (tmp_path / "history.csv").read_bytes()
    with open(tmp_path / "history.csv", "ab") as file:
        file.write(b"3,0.2")
    assert len(read_history(tmp_path)) == 3
    RunFolder.resume(tmp_path).close()
    assert (tmp_path / "history.csv").read_bytes() == whole


def test_resume_refuses_what_is_not_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "problem.yaml").write_text(PROBLEM)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(OutputError, match="expected a run folder to resume"):
            RunFolder.resume(path)
    assert contents(tmp_path) == {"problem.yaml": PROBLEM.encode()}


def test_the_damaged_line_of_a_history_is_named(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("iteration,objective\n0,1.0\n1\n")
    with pytest.raises(OutputError, match=r"history\.csv:3: expected 2 cells, found 1"):
        read_history(tmp_path)
    with pytest.raises(OutputError, match="no such file"):
        read_history(tmp_path / "none.csv")


WRITER = """
import sys
from nhgd_pde.output.run_folder import RunFolder
run = RunFolder.create(sys.argv[1], "name: demo")
for iteration in range(100_000_000):
    run.append_history({"iteration": iteration, "objective": 1 / (1 + iteration)})
    run.write_summary({"iteration": iteration, "twice": iteration})
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_after_a_kill_history_and_summary_are_complete(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], cwd=Path(__file__).parents[1])
    give_up = time.monotonic() + 60
    while not (folder / "summary.json").exists() and time.monotonic() < give_up:
        assert writer.poll() is None, "the writer ended by itself"
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0.05, 0.2))
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL

    rows = read_history(folder)
    assert rows == [{"iteration": at, "objective": 1 / (1 + at)} for at in range(len(rows))]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["iteration"] == summary["twice"]
    assert 0 <= len(rows) - 1 - summary["iteration"] <= 1
    RunFolder.create(folder, PROBLEM).close()
    assert contents(folder).keys() == {"problem.yaml"}
