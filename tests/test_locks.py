"""A folder has one run and one problem at a time: others are refused with a sentence, in any process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nhgd_pde as nhgd
from nhgd_pde.output.lock import LOCK, FolderInUseError, FolderLock
from nhgd_pde.output.storage import OutputError, StorageError

PROBLEM: dict[str, Any] = {
    "name": "small",
    "mesh": {"kind": "rectangle", "cells": [4, 4]},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-4}],
    "output": {"every": 1, "checkpoint": 1},
}
HOLDER = """
import sys, time
from pathlib import Path
from nhgd_pde.output.lock import FolderLock
lock = FolderLock.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(1000)
"""


def load(**settings: Any) -> nhgd.Problem:
    return nhgd.load(PROBLEM, settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_two_resumes_and_a_second_problem_in_one_folder(tmp_path: Path) -> None:
    """One of them runs, the others are refused."""
    folder = tmp_path / "run"
    whole = nhgd.solve(load())
    refused = []

    def others(row: Any) -> None:
        if row["iteration"] != 2:
            return
        before = contents(folder)
        for problem, resume in ((load(), False), (load(), True), (load(name="another"), False)):
            with pytest.raises(FolderInUseError) as caught:
                nhgd.solve(problem, output=folder, resume=resume, overwrite=True)
            refused.append(str(caught.value))
        with pytest.raises(FolderInUseError):
            whole.save(folder)
        assert contents(folder) == before

    first = nhgd.solve(load(), callback=others, output=folder)
    assert first.objective == whole.objective and len(refused) == 3
    who = f"process {os.getpid()} on {socket.gethostname()}"
    assert all(str(folder) in text and who in text and "wait for its end" in text for text in refused)
    assert not (folder / LOCK).exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(FolderInUseError, match=f"process {holder.pid} on .*wait for its end"):
        FolderLock.take(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (tmp_path / LOCK).exists()
    lock = FolderLock.take(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    lock.close()
    assert not list(tmp_path.iterdir())


def test_the_message_for_a_lock_of_another_machine_names_the_file_to_delete(tmp_path: Path) -> None:
    text = json.dumps({"host": "elsewhere", "process": 17, "since": "2026-01-02 03:04:05"})
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(FolderInUseError) as caught:
        nhgd.solve(load(), output=tmp_path)
    told = f"(process 17 on elsewhere, since 2026-01-02 03:04:05); if that run has ended, delete {tmp_path / LOCK}"
    assert told in str(caught.value)
    assert contents(tmp_path) == {LOCK: text.encode()}
    (tmp_path / LOCK).unlink()
    assert nhgd.solve(load(), output=tmp_path).status == "converged"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": '])
def test_an_incomplete_lock_file_is_taken_over(text: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(text)
    FolderLock.take(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_without_locks_of_the_system_the_process_in_the_file_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system or an operating system without locks, the text of the file names the process."""
    monkeypatch.setattr("nhgd_pde.output.lock.fcntl", None)
    lock = FolderLock.take(tmp_path)
    with pytest.raises(FolderInUseError, match=f"process {os.getpid()} on"):
        FolderLock.take(tmp_path)
    held = json.loads((tmp_path / LOCK).read_text())
    lock.close()
    # The id of a process that has ended may belong to another process now, which started at another time.
    (tmp_path / LOCK).write_text(json.dumps({**held, "started": "another"}))
    FolderLock.take(tmp_path).close()


def test_a_run_that_lost_its_folder_writes_nothing_more(tmp_path: Path) -> None:
    lock = FolderLock.take(tmp_path)
    lock.check()
    (tmp_path / LOCK).unlink()
    lock.check()
    other = FolderLock.take(tmp_path)
    with pytest.raises(StorageError, match="another run has taken over the folder"):
        lock.check()
    lock.close()
    other.check()
    assert (tmp_path / LOCK).exists(), "a run that has lost its folder leaves the lock of the other one alone"
    other.close()


# The problem of the results in a folder


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "another"}, "found name = 'small', now 'another'"),
        ({"pde": {"kind": "semilinear", "nonlinearity": "u**3"}}, "found pde.kind = 'poisson', now 'semilinear'"),
    ],
)
def test_results_of_another_problem_are_kept(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    solution = nhgd.solve(load(), output=folder)
    before = contents(folder)
    boundary = {"boundary": {"all": {"dirichlet": 0}}}
    other = {**settings, "pde": {**boundary, **settings["pde"]}} if "pde" in settings else settings
    problem = load(**other)
    with pytest.raises(OutputError, match=words.replace(".", r"\.")) as caught:
        nhgd.solve(problem, output=folder)
    assert "--overwrite" in str(caught.value) and contents(folder) == before
    found = nhgd.solve(problem, output=folder, overwrite=True)
    assert json.loads((folder / "summary.json").read_text())["objective"] == found.objective
    with pytest.raises(OutputError, match="holds the results of another problem"):
        solution.save(folder)
    solution.save(folder, overwrite=True)


def test_other_parameters_of_the_same_problem_go_into_its_folder(tmp_path: Path) -> None:
    """Different parameters, meshes, methods and options of one problem may use one folder, one after the other."""
    for settings in (
        {},
        {"objective.1.weight": 1e-3},
        {"mesh.cells": [5, 3]},
        {"method": "adjoint"},
        {"objective.0.target": "x + y"},
    ):
        solution = nhgd.solve(load(**settings), output=tmp_path / "run")
        assert json.loads((tmp_path / "run/summary.json").read_text())["objective"] == solution.objective
