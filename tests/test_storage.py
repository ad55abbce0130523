"""Full disks and folders without permission: runs report them in sentences and lose no results."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from storage import fill, limited_files, mounts, ordinary_user, small_disk

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.output.lines import LineFile
from nhgd_pde.output.run_folder import RunFolder, read_history
from nhgd_pde.output.storage import OutputError, StorageError, reason, refusal
from nhgd_pde.run.troubles import ResultsLostError

PROBLEM = {
    "name": "small",
    "mesh": {"kind": "rectangle", "cells": [6, 6]},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-4}],
    "output": {"every": 1, "checkpoint": 1},
}
FILE = """\
name: small
mesh: {kind: rectangle, cells: [4, 4]}
pde: {kind: poisson, boundary: {all: {dirichlet: 0}}}
control: {kind: source}
objective:
  - {kind: tracking, target: "x*y"}
  - {kind: regularisation, weight: 1.0e-4}
"""


@pytest.fixture(scope="module")
def whole() -> nhgd.Solution:
    return nhgd.solve(nhgd.load(PROBLEM))


def assert_same(one: nhgd.Solution, other: nhgd.Solution) -> None:
    """Compares two solutions to the last bit."""
    assert one.status == other.status and np.array_equal(one.control, other.control)
    assert [row["objective"] for row in one.history] == [row["objective"] for row in other.history]


def rows_of(folder: Path) -> list[object]:
    return [row["iteration"] for row in read_history(folder)]


def sentence(error: BaseException) -> str:
    text = str(error)
    assert text and "\n" not in text and "Errno" not in text
    return text


# Sentences


def test_errors_of_the_system_are_reported_in_plain_words() -> None:
    for number, words in (
        (errno.ENOSPC, "the disk is full (No space left on device)"),
        (errno.EDQUOT, "the quota of this user is used up"),
        (errno.EROFS, "the file system is mounted read-only"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EPIPE, "nobody reads it any more"),
    ):
        assert words in reason(OSError(number, os.strerror(number)))
    error = refusal(OSError(errno.ENOSPC, "No space left on device"), "out/final.vtu")
    assert str(error) == "out/final.vtu: cannot be written: the disk is full (No space left on device)"
    assert isinstance(error, OutputError) and isinstance(error, OSError)


# A run that temporarily cannot write


def interfering(at: int, until: int, begin: Callable[[], Any], end: Callable[[], Any]) -> Callable[[Any], None]:
    """A callback that does something at one iteration and undoes it at another."""

    def callback(row: Any) -> None:
        if row["iteration"] == at:
            begin()
        if row["iteration"] == until:
            end()

    return callback


@mounts
def test_a_disk_that_is_full_for_a_while_loses_only_fields(whole: nhgd.Solution) -> None:
    told: list[str] = []
    with small_disk() as disk:
        callback = interfering(1, 3, lambda: fill(disk), (disk / "filler").unlink)
        solution = nhgd.solve(nhgd.load(PROBLEM), callback, disk / "run", tell=told.append)
        assert_same(solution, whole)
        assert rows_of(disk / "run") == list(range(len(whole.history)))
        summary = json.loads((disk / "run" / "summary.json").read_text())
        assert summary["warnings"] == solution.stats["warnings"]
        again = nhgd.solve(nhgd.load(PROBLEM), output=disk / "run", resume=True)
    assert_same(again, whole)
    checkpoints = [text for text in told if text.startswith("checkpoint: ")]
    assert len(checkpoints) == 1 and "the disk is full" in checkpoints[0]
    assert "the run goes on; --resume goes on from the checkpoint of iteration 0" in checkpoints[0]
    assert all(text.partition(":")[0] in "".join(solution.stats["warnings"]) for text in told)


@mounts
def test_results_that_cannot_be_written_are_not_lost(whole: nhgd.Solution) -> None:
    with small_disk() as disk:
        with pytest.raises(ResultsLostError) as caught:
            nhgd.solve(nhgd.load(PROBLEM), interfering(2, -1, lambda: fill(disk), int), disk / "run")
        text = sentence(caught.value)
        assert "final.vtu: cannot be written: the disk is full" in text
        assert "has ended as converged, --resume goes on from the checkpoint of iteration 1 and writes" in text
        assert isinstance(caught.value.solution, nhgd.Solution)
        assert_same(caught.value.solution, whole)
        (disk / "filler").unlink()
        assert_same(nhgd.solve(nhgd.load(PROBLEM), output=disk / "run", resume=True), whole)
        assert rows_of(disk / "run") == list(range(len(whole.history)))
        assert (disk / "run" / "final.vtu").exists()
        assert not list((disk / "run").glob(".*")), "temporaries and the lock are gone"


def test_a_limit_of_file_sizes_is_reported_and_the_run_goes_on(whole: nhgd.Solution, tmp_path: Path) -> None:
    told: list[str] = []
    limits = limited_files(3000)
    callback = interfering(1, 3, limits.__enter__, lambda: limits.__exit__(None, None, None))
    solution = nhgd.solve(nhgd.load(PROBLEM), callback, tmp_path / "run", tell=told.append)
    assert_same(solution, whole)
    assert any("ulimit -f" in text and "checkpoint" in text for text in told)
    assert_same(nhgd.solve(nhgd.load(PROBLEM), output=tmp_path / "run", resume=True), whole)


def test_a_folder_that_is_deleted_is_not_made_again(whole: nhgd.Solution, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(ResultsLostError) as caught:
        nhgd.solve(nhgd.load(PROBLEM), interfering(2, -1, lambda: shutil.rmtree(folder), int), folder)
    assert "the run folder has been deleted or moved during the run" in sentence(caught.value)
    assert isinstance(caught.value.solution, nhgd.Solution)
    assert_same(caught.value.solution, whole)
    assert not folder.exists()


def test_a_folder_that_is_replaced_by_another_one_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def replace() -> None:
        shutil.rmtree(folder)
        (tmp_path / "holder").mkdir()
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")

    with pytest.raises(ResultsLostError, match=r"replaced by another one during the run|deleted or moved"):
        nhgd.solve(nhgd.load(PROBLEM), interfering(2, -1, replace, int), folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_folder_that_loses_its_permissions_is_reported(whole: nhgd.Solution) -> None:
    problem = nhgd.load(PROBLEM)
    with ordinary_user() as home:
        folder = home / "run"
        with pytest.raises(ResultsLostError, match="this user has no permission"):
            nhgd.solve(problem, interfering(2, -1, lambda: folder.chmod(0o555), int), folder)
        with pytest.raises(StorageError, match="no permission"):
            nhgd.solve(problem, output=folder, resume=True)
        folder.chmod(0o755)
        assert_same(nhgd.solve(problem, output=folder, resume=True), whole)


# A run that cannot begin


def test_places_where_runs_cannot_be_written_are_refused_in_one_sentence() -> None:
    problem = nhgd.load(PROBLEM)
    solution = nhgd.solve(problem)
    with ordinary_user() as home:
        (home / "file").write_text("kept")
        (home / "link").symlink_to(home / "nowhere")
        (home / "round").symlink_to(home / "round")
        (home / "closed").mkdir(mode=0o555)
        (home / "hidden").mkdir(mode=0o000)
        (home / "x").mkdir()
        for place, words in (
            ("file", "found a file at"),
            ("file/run", "found a file at"),
            ("link", "that leads nowhere"),
            ("round", "that leads nowhere"),
            ("closed", "this user has no permission"),
            ("closed/run", "this user has no permission"),
            ("hidden", "this user has no permission"),
            ("hidden/run", "this user has no permission"),
            ("x/" + 300 * "n", "the name is too long"),
        ):
            for write in (
                lambda path: nhgd.solve(problem, output=path),
                lambda path: solution.save(path),
                lambda path: nhgd.solve(problem, output=path, resume=True),
                lambda path: nhgd.verify(problem, at=path),
            ):
                with pytest.raises(OutputError) as caught:
                    write(home / place)
                sentence(caught.value)
            with pytest.raises(OutputError, match=words):
                nhgd.solve(problem, output=home / place)
        assert (home / "file").read_text() == "kept" and not (home / "nowhere").exists()
        (home / "hidden").chmod(0o755)


@mounts
def test_a_read_only_mount_and_a_full_disk_are_refused(tmp_path: Path) -> None:
    problem = nhgd.load(PROBLEM)
    with small_disk() as disk:
        fill(disk)
        with pytest.raises(StorageError, match="the disk is full"):
            nhgd.solve(problem, output=disk / "run")
        (disk / "filler").unlink()
        assert not list(disk.iterdir())
        nhgd.solve(problem, output=disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for resume in (False, True):
            with pytest.raises(StorageError, match="mounted read-only"):
                nhgd.solve(problem, output=disk / "run", resume=resume)
        assert nhgd.verify(problem, at=disk / "run").passed, "reading needs no permission to write"


@mounts
def test_files_of_another_user_are_not_overwritten(whole: nhgd.Solution, tmp_path: Path) -> None:
    problem = nhgd.load(PROBLEM)
    with small_disk() as disk:
        nhgd.solve(problem, output=disk / "run")
        with ordinary_user(), pytest.raises(StorageError, match=r"no permission, .* belongs to root"):
            nhgd.solve(problem, output=disk / "run")
        assert_same(nhgd.solve(problem, output=disk / "run", resume=True), whole)


def test_all_lines_are_written_completely(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.csv")
    file.append("0123456789\n")
    with limited_files(25):
        file.append("a\n")
        with pytest.raises(StorageError):
            file.append("too long for the limit\n")
        assert (tmp_path / "a.csv").read_text() == "0123456789\na\n"
    file.append("b\n")
    assert (tmp_path / "a.csv").read_text() == "0123456789\na\ntoo long for the limit\nb\n"
    file.close()


# Temporary files


def test_a_resumed_run_removes_temporary_files_of_a_killed_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    nhgd.solve(nhgd.load({**PROBLEM, "outer": {"iterations": 1}}), output=folder)
    ours = ["checkpoint.pt", "checkpoint-before.pt", "checkpoint-curvature-3.pt", "final.vtu", "history.csv"]
    ours += [
        "population.pt",
        "solution.pt",
        "mesh.npz",
        "problem.yaml",
        "summary.json",
        "fields/state.pvd",
        "fields/state_00004.vtu",
    ]
    theirs = [".notes.txt.0123456789ab.tmp", ".final.vtu.tmp", "fields/.mine.vtu.0123456789ab.tmp"]
    for name in ours:
        target = folder / name
        target.with_name(f".{target.name}.0123456789ab.tmp").write_text("half")
    for name in theirs:
        (folder / name).write_text("kept")
    nhgd.solve(nhgd.load(PROBLEM), output=folder, resume=True)
    left = {str(path.relative_to(folder)) for path in folder.rglob(".*")}
    assert left == set(theirs)


# The command line


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(FILE)
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def test_commands_that_cannot_write_end_with_a_sentence_and_a_code(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for arguments, code in (
        (["solve", "a.yaml", "--output", "file/run"], 2),
        (["new", "poisson", "--output", "file/b.yaml"], 2),
        (["new", "poisson", "--output", "none/b.yaml"], 2),
        (["bench", "a.yaml", "--output", "file/bench"], 2),
        (["verify", "a.yaml", "--at", "file"], 2),
        (["check", "file/a.yaml"], 2),
    ):
        result = command(*arguments)
        assert result.exit_code == code and isinstance(result.exception, SystemExit), (arguments, result.exception)
        assert "file" in result.stderr or "none" in result.stderr
    assert (tmp_path / "file").read_text() == "kept"


@mounts
def test_a_run_without_its_results_is_exit_code_one(command: Callable[..., Any], tmp_path: Path) -> None:
    with small_disk("40k") as disk:
        result = command("solve", "a.yaml", "--output", str(disk / "run"))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert "failed: " in result.output and "the disk is full" in result.output
    assert "warning: " in result.stderr


def test_the_command_line_works_in_a_thread(command: Callable[..., Any]) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(command("solve", "a.yaml")))
    thread.start()
    thread.join()
    assert found[0].exit_code == 0, found[0].output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(FILE)
    with open("/dev/full", "w") as full:
        for arguments, code in ((["solve", "a.yaml"], 0), (["schema"], 1)):
            done = subprocess.run(
                [sys.executable, "-m", "nhgd_pde", *arguments],
                cwd=tmp_path,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                check=False,
            )
            assert done.returncode == code, done.stderr
            assert done.stderr.startswith("standard output: cannot be written: the disk is full")
            assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "outputs/small/summary.json").exists()


def test_a_saved_solution_keeps_no_lock(whole: nhgd.Solution, tmp_path: Path) -> None:
    whole.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob(".*"))
    with RunFolder.resume(tmp_path / "saved"):
        pass
