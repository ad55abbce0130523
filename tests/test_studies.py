"""Studies: what they refuse, that they give the same rows however they are made, and what they find."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from processes import ONE_THREAD, linux, wait_for

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.output.figure import draw_folder
from nhgd_pde.studies.designs import PlannedRun, planned
from nhgd_pde.studies.l_curve import corner
from nhgd_pde.studies.orders import observed_order
from nhgd_pde.studies.pareto import front
from nhgd_pde.studies.study_file import read_study
from nhgd_pde.studies.study_folder import folder_name
from nhgd_pde.studies.study_spec import KINDS
from nhgd_pde.studies.workers import Processes

ROOT = Path(__file__).parents[1]
POISSON = str(ROOT / "problems" / "poisson_control.yaml")
INVERSION = str(ROOT / "problems" / "log_conductivity_inversion.yaml")
SHIPPED = sorted((ROOT / "problems" / "studies").glob("*.yaml"))
# Columns that the machine decides; and the work, of which a run that is resumed has to do some again.
TIMES, WORK = {"seconds"}, ("solves", "factorisations")


def grid(**keys: Any) -> dict[str, Any]:
    """A grid of six small runs, with keys of a study."""
    return {
        "study": "weights",
        "problem": POISSON,
        "kind": "grid",
        "vary": {"objective.1.weight": {"log": [1e-5, 1e-3, 3]}, "element": ["P1", "P2"]},
        "overrides": {"mesh.cells": [6, 6]},
        **keys,
    }


def slow(folder: Path) -> Path:
    """A study file of three runs with many iterations each."""
    text = f"""
    study: slow
    problem: {POISSON}
    kind: grid
    vary: {{objective.1.weight: [3.0e-6, 1.0e-6, 3.0e-7]}}
    overrides: {{mesh.cells: [24, 24], outer.method: gradient, outer.iterations: 400, outer.rtol: 1.0e-12}}
    """
    path = folder / "slow.yaml"
    path.write_text("\n".join(line.removeprefix("    ") for line in text.splitlines()))
    return path


def comparable(rows: Any, *more: str) -> list[dict[str, Any]]:
    left_out = {*TIMES, *more}
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def started(file: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nhgd_pde", "study", str(file), "--output", str(output), *options]
    return subprocess.Popen(
        command, env=ONE_THREAD, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def busy(output: Path, process: subprocess.Popen[str]) -> tuple[Path, int]:
    """A run folder of a study, and its process, once it has a checkpoint and is at least at its fifth iteration."""
    found: list[tuple[Path, int]] = []

    def looked() -> bool:
        assert process.poll() is None, "the study has ended"
        for folder in sorted(output.glob("0*")):
            lock, history = folder / ".nhgd-pde.lock", folder / "history.csv"
            try:
                rows, holder = history.read_text().count("\n"), json.loads(lock.read_text())
            except (OSError, ValueError):
                continue
            if rows > 5 and (folder / "checkpoint.pt").exists():
                found.append((folder, holder["process"]))
                return True
        return False

    wait_for(looked, "no run has begun")
    return found[0]


# A warm start


@pytest.fixture(scope="module")
def inversions(tmp_path_factory: pytest.TempPathFactory) -> tuple[nhgd.Study, nhgd.Study]:
    """The same six inversions, as a continuation and from their files."""
    content = {
        "study": "inversion",
        "problem": INVERSION,
        "vary": {"objective.1.weight": {"log": [1e-7, 1e-8, 6]}},
        "overrides": {"mesh.cells": [12, 12]},
    }
    folder = tmp_path_factory.mktemp("inversions")
    warm, cold = (nhgd.study({**content, "kind": kind}, output=folder / kind) for kind in ("continuation", "grid"))
    return warm, cold


def test_a_continuation_takes_fewer_solves_and_gives_the_same_answers(
    inversions: tuple[nhgd.Study, nhgd.Study],
) -> None:
    warm, cold = inversions
    assert warm.complete and cold.complete
    assert [row["start"] for row in warm.rows] == ["cold", *(row["folder"] for row in warm.rows[:-1])]
    assert {row["start"] for row in cold.rows} == {"cold"}
    for column in ("solves", "iterations"):
        assert sum(row[column] for row in warm.rows) < 0.9 * sum(row[column] for row in cold.rows)
    for a, b in zip(warm.rows, cold.rows, strict=True):
        assert a["objective"] == pytest.approx(b["objective"], rel=1e-9)
        assert a["control_norm"] == pytest.approx(b["control_norm"], rel=1e-5)


def test_the_goal_of_a_warm_run_is_that_of_the_cold_one() -> None:
    settings = {"mesh.cells": [10, 10]}
    problem = nhgd.load(POISSON, {**settings, "objective.1.weight": 2e-5})
    neighbour = nhgd.solve(problem).control
    cold = nhgd.solve(nhgd.load(POISSON, {**settings, "objective.1.weight": 1e-5}))
    warm = nhgd.solve(nhgd.load(POISSON, {**settings, "objective.1.weight": 1e-5}), initial=neighbour)
    first = cold.stats["gradient_norm_initial"]
    assert warm.stats["gradient_norm_initial"] < 0.1 * first
    assert warm.stats["gradient_norm"] <= 1e-8 * first and "at the start of the file" in warm.message
    # A goal relative to the first gradient of the warm run would not have been reached yet.
    assert warm.stats["gradient_norm"] > 1e-8 * warm.stats["gradient_norm_initial"]
    np.testing.assert_allclose(warm.control, cold.control, atol=1e-5 * np.abs(cold.control).max())


def test_a_run_that_starts_at_its_answer_has_nothing_to_do() -> None:
    problem = nhgd.load(POISSON, {"mesh.cells": [8, 8]})
    answer = nhgd.solve(problem)
    again = nhgd.solve(problem, initial=answer.control)
    assert again.status == "converged" and again.stats["outer_iterations"] == 0


@pytest.mark.parametrize(
    "name", ["robust_poisson", "heat_control", "mbb_beam", "state_constraint", "semilinear_control"]
)
def test_problems_of_every_kind_start_warm(name: str) -> None:
    from units import SMALL

    settings = {**SMALL[name], **({"outer.iterations": 8} if name == "mbb_beam" else {})}
    load = lambda: nhgd.load(ROOT / f"problems/{name}.yaml", settings)  # noqa: E731
    cold = nhgd.solve(load())
    warm = nhgd.solve(load(), initial=cold.control)
    assert warm.status == cold.status
    if cold.status == "converged":
        assert warm.objective == pytest.approx(cold.objective, rel=1e-6)
        # With bounds of the state the multipliers are found anew, which takes most iterations.
        fewer = 0 if warm.problem.state_bounds else 1
        assert warm.stats["outer_iterations"] <= cold.stats["outer_iterations"] - fewer


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (np.zeros(3), r"expected \(25,\) values of the control, found 3"),
        (np.full(25, np.nan), "expected finite values"),
        (np.ones(25) * 1j, "expected real numbers, found an array of the type complex128"),
        ([["a"]], "expected real numbers, found list"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(initial: Any, message: str) -> None:
    with pytest.raises(nhgd.ProblemError, match=message):
        nhgd.solve(nhgd.load(POISSON, {"mesh.cells": [4, 4]}), initial=initial)


def test_a_warm_run_that_is_resumed_ends_with_the_same_numbers(tmp_path: Path) -> None:
    problem = lambda: nhgd.load(INVERSION, {"mesh.cells": [10, 10]})  # noqa: E731
    start = nhgd.solve(nhgd.load(INVERSION, {"mesh.cells": [10, 10], "objective.1.weight": 2e-8})).control
    whole = nhgd.solve(problem(), initial=start)
    nhgd.solve(problem(), initial=start, output=tmp_path / "run", callback=lambda row: row["iteration"] == 1)
    # The goal is in the checkpoint, so that the start is not asked for again.
    resumed = nhgd.solve(problem(), output=tmp_path / "run", resume=True)
    assert resumed.message == whole.message and np.array_equal(resumed.control, whole.control)


def test_a_run_starts_from_a_solution_or_the_folder_of_a_run(tmp_path: Path) -> None:
    problem = lambda: nhgd.load(POISSON, {"mesh.cells": [6, 6]})  # noqa: E731
    first = nhgd.solve(problem(), output=tmp_path / "first")
    again = [nhgd.solve(problem(), initial=each) for each in (first.control, first, tmp_path / "first")]
    assert all(np.array_equal(each.control, again[0].control) and each.stats["outer_iterations"] == 0 for each in again)
    assert again[0].status == "converged" and "the start is a solution" in again[0].message
    with pytest.raises(nhgd.OutputError, match="expected a run folder"):
        nhgd.solve(problem(), initial=tmp_path / "nothing")
    # A mesh with as many vertices, which are other ones.
    with pytest.raises(nhgd.ProblemError, match="expected a run on the mesh of this problem, found another one in"):
        nhgd.solve(
            nhgd.load(POISSON, {"mesh": {"kind": "interval", "cells": 48}, "objective.0.target": "x"}),
            initial=tmp_path / "first",
        )
    wider = nhgd.solve(nhgd.load(POISSON, {"mesh.cells": [6, 6], "mesh.size": [2, 1]}), initial=tmp_path / "first")
    assert wider.status == "converged"
    command = ["solve", str(POISSON), "--set", "mesh.cells=[6,6]", "--output", str(tmp_path / "second")]
    found = CliRunner().invoke(main, [*command, "--initial", str(tmp_path / "first")])
    assert found.exit_code == 0 and "converged: the start is a solution" in found.output


# What is refused

MISTAKES = {
    "kind: gird\nstudy: a\nproblem: p.yaml": r"a.yaml:1: kind: expected one of grid, .*; found|did you mean 'grid'",
    "study: a\nproblem: p.yaml": r"a.yaml:1: kind: missing; expected one of grid",
    "study: a\nkind: grid\nproblem: p.yaml\nvary: {objective.1.weight: {lgo: [1, 2, 3]}}": (
        r"a.yaml:4: vary.objective.1.weight: expected a list .* with lgo \(did you mean 'log'\?\)"
    ),
    "study: a\nkind: grid\nproblem: p.yaml\nvary:\n  a: {log: [0, 1, 3]}\n  b: {linear: [1, 1, 3]}\n  c: []": (
        r"(?s)a.yaml:5: vary.a: expected a number above 0.*a.yaml:6: vary.b: .*a.yaml:7: vary.c: "
    ),
    "study: a\nkind: grid\nproblem: p.yaml\nvary: {a: {log: [1, 2]}}": r"a.yaml:4: vary.a: expected a count of values",
    "study: a\nkind: grid\nproblem: p.yaml\nvary: {a: {linear: [1, 2, 2.5]}}": "whole number",
    "study: a\nkind: grid\nproblem: p.yaml\nvery: {a: [1]}": r"a.yaml:4: very: unknown key \(did you mean 'vary'\?\)",
    "study: ../a\nkind: list\nproblem: p.yaml\nruns: [{a: 1}]": r"a.yaml:1: study: expected a name of letters, digits",
    "study: a\nkind: list\nproblem: p.yaml\nruns: []": r"a.yaml:4: runs",
    "study: a\nkind: list\nproblem: p.yaml\nruns: [1]": r"a.yaml:4: runs.0",
    "study: a\nkind: l_curve\nproblem: p.yaml\nvary: {mesh.cells: [1, 2, 3, 4]}": "expected the weight of a term",
    "study: a\nkind: l_curve\nproblem: p.yaml\nvary: {objective.1.weight: [1, 1, 2, 3]}": "found one twice",
    "study: a\nkind: refinement\nproblem: p.yaml\nvary: {mesh.cells: [8, 16]}": "at least 3 values, found 2",
    "study: a\nkind: refinement\nproblem: p.yaml\nvary: {outer.rtol: [1, 2, 3]}": (
        r"a.yaml:4: vary.outer.rtol: expected one of mesh.cells, mesh.refine, .*, time.steps, found 'outer.rtol'"
    ),
    "study: a\nkind: refinement\nproblem: p.yaml\nvary: {a: [1, 2, 3], b: [1, 2, 3]}": "one key, found 2: a, b",
    "study: a\nkind: latin_hypercube\nproblem: p.yaml\nvary: {a: {log: [1, 2]}}\nsamples: 0": r"a.yaml:5: samples: ",
    "study: a\nkind: pareto\nproblem: p.yaml\nvary: {a: [1]}\nof: [tracking]": "at least two columns",
    "study: a\nkind: grid\nproblem: missing.yaml\nvary: {a: [1]}": r"a.yaml:3: problem: .* no 'missing.yaml'",
    "[1, 2]": "expected a mapping with study, problem, kind, found a list of 2",
    "": "expected a mapping",
    "name: x\npde: {kind: poisson}": "this is a problem file, which `nhgd-pde solve` takes",
    "study: a\nkind: grid\nkind: list": "duplicate key",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_of_a_study_file_are_told_with_their_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    done = CliRunner().invoke(main, ["study", str(tmp_path / "a.yaml"), "--output", str(tmp_path / "out")])
    assert done.exit_code == 2 and re.search(MISTAKES[text], done.output), done.output
    assert "Traceback" not in done.output and not (tmp_path / "out").exists()


def test_mistakes_of_all_combinations_are_told_before_anything_runs(tmp_path: Path) -> None:
    text = f"""study: a
problem: {POISSON}
kind: grid
vary:
  objective.1.weight: [1.0e-3, -1, many]
  mesh.cells: [[4, 4], [4, 4, 4]]
  objektive.1: [0]
overrides: {{elment: P2}}
"""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(nhgd.ProblemError) as error:
        nhgd.study(tmp_path / "a.yaml", output=tmp_path / "out")
    said = str(error.value).splitlines()
    for line, wanted in ((5, "found -1"), (5, "found 'many'"), (6, "2 values"), (7, "objective"), (8, "element")):
        assert len([each for each in said if f"a.yaml:{line}: " in each and wanted in each]) == 1
    assert len(said) == 5 and not (tmp_path / "out").exists()


def test_names_of_columns_are_checked_before_anything_runs(tmp_path: Path) -> None:
    content = {**grid(kind="pareto"), "of": ["tracking", "regularization"]}
    with pytest.raises(nhgd.ProblemError, match=r"of.1: expected one of tracking, .*did you mean 'regularisation'"):
        nhgd.study(content, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_functions_need_one_process(tmp_path: Path) -> None:
    problem = {
        "name": "own",
        "mesh": {"kind": "rectangle", "cells": [4, 4]},
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [
            {"kind": "python", "python": lambda u, grad, v, x: (u - 1.0) ** 2},
            {"kind": "regularisation", "weight": 1e-3},
        ],
    }
    content = {"study": "own", "problem": problem, "kind": "list", "runs": [{"objective.1.weight": 1e-2}, {}]}
    with pytest.raises(
        nhgd.ProblemError, match="processes: expected 1 where functions or meshes in memory are in the problem, found"
    ):
        nhgd.study(content, processes=2, output=tmp_path / "out")
    assert nhgd.study(content, output=tmp_path / "out").complete


@pytest.mark.parametrize(("module", "options"), [("optuna", []), ("distributed", ["--scheduler", "localhost:1"])])
def test_what_is_not_installed_is_told(
    module: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    # Python refuses to import what has None in this place.
    monkeypatch.setitem(sys.modules, module, None)
    kind = {"kind": "optuna", "trials": 2} if module == "optuna" else {}
    (tmp_path / "a.yaml").write_text(json.dumps(grid(**kind)))
    done = CliRunner().invoke(main, ["study", str(tmp_path / "a.yaml"), "--output", str(tmp_path / "out"), *options])
    assert done.exit_code == 2 and "pip install 'nhgd-pde[" in done.output, done.output


# The folder


def test_a_folder_is_refused_resumed_or_replaced(tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = nhgd.study(grid(), output=output)
    assert [row["folder"] for row in first.rows][:2] == ["0001_weight=1e-05_element=P1", "0002_weight=1e-05_element=P2"]
    with pytest.raises(nhgd.OutputError, match=r"holds a study, 6 of whose runs have ended; --resume .*--overwrite"):
        nhgd.study(grid(), output=output)
    times = {path: path.stat().st_mtime_ns for path in output.glob("0*/*")}
    again = nhgd.study(grid(), output=output, resume=True)
    assert list(again.rows) == list(first.rows)
    assert {path: path.stat().st_mtime_ns for path in output.glob("0*/*")} == times
    # More values: what is known is not made again.
    more = nhgd.study(
        grid(vary={"element": ["P1", "P2"], "objective.1.weight": [1e-5, 3e-4]}), output=output, resume=True
    )
    assert [row["folder"] for row in more.rows] == [
        "0001_weight=1e-05_element=P1",
        "0002_element=P1_weight=0.0003",
        "0002_weight=1e-05_element=P2",
        "0004_element=P2_weight=0.0003",
    ]
    (output / "mine.txt").write_text("stays")
    new = nhgd.study(grid(vary={"objective.1.weight": [1e-4]}), output=output, overwrite=True)
    assert len(new.rows) == 1 and {path.name for path in output.glob("0*")} == {"0001_weight=0.0001"}
    assert (output / "mine.txt").read_text() == "stays"


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(nhgd.OutputError, match="expected a new, empty or study folder, found other files"):
        nhgd.study(grid(), output=tmp_path, overwrite=True)
    with pytest.raises(nhgd.OutputError, match="expected a study to resume, found none"):
        nhgd.study(grid(), output=tmp_path / "new", resume=True)
    with pytest.raises(nhgd.OutputError, match="expected a folder or a new path, found a file"):
        nhgd.study(grid(), output=tmp_path / "notes.txt")
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": 1, "rows": [], "findings": {}}', "\x00"])
def test_a_damaged_record_is_a_sentence(text: str, tmp_path: Path) -> None:
    nhgd.study(grid(vary={"element": ["P1"]}), output=tmp_path / "out")
    (tmp_path / "out" / "study.json").write_text(text)
    for call in (
        lambda: nhgd.study(grid(), output=tmp_path / "out", resume=True),
        lambda: nhgd.Study.load(tmp_path / "out"),
    ):
        with pytest.raises(nhgd.OutputError, match=r"study.json: the file is damaged"):
            call()
    assert nhgd.study(grid(vary={"element": ["P1"]}), output=tmp_path / "out", overwrite=True).complete


def test_names_of_run_folders_fit_every_file_system() -> None:
    settings = {"pde.source": "sin(2*pi*x)/y: <|>?", "a.weight": 1.0 / 3.0, "b.weight": [1.5, None], "c": "\u00e4" * 99}
    name = folder_name(PlannedRun(7, settings))
    assert re.fullmatch(r"0007_[A-Za-z0-9.+=_-]+", name) and len(name) <= 80 and not name.endswith(".")
    assert "a.weight=0.333333" in name and "b.weight=1.5xNone" in name


def test_every_run_has_an_ordinary_run_folder_and_a_row(tmp_path: Path) -> None:
    study = nhgd.study(grid(), output=tmp_path / "out")
    for row in study.rows:
        folder = study.folder / row["folder"]
        assert draw_folder(folder).exists()
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["objective"] == row["objective"] and summary["solves"]["solves"] == row["solves"]
        terms = {key: value for key, value in row.items() if key.startswith("term_")}
        assert sum(terms.values()) == pytest.approx(row["objective"], rel=1e-12)
        assert row["unweighted_regularisation"] * row["objective.1.weight"] == pytest.approx(row["term_regularisation"])
    with (study.folder / "table.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(each["objective"]) for each in written] == [row["objective"] for row in study.rows]
    assert (study.folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    loaded = nhgd.Study.load(study.folder)
    assert list(loaded.rows) == list(study.rows) and loaded.table() == study.table()
    assert len(repr(study)) < 120 and "6 converged" in repr(study)


def test_the_table_is_a_parquet_file_too(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    study = nhgd.study(grid(), output=tmp_path / "out")
    table = parquet.read_table(study.folder / "table.parquet").to_pylist()
    assert [each["objective"] for each in table] == [row["objective"] for row in study.rows]
    assert [each["element"] for each in table] == [row["element"] for row in study.rows]


def test_a_run_that_fails_is_a_row_with_its_sentence(tmp_path: Path) -> None:
    runs = [{}, {"pde.conductivity": "x - 0.5"}, {"outer.iterations": 1, "outer.rtol": 1e-14}]
    content = {**grid(kind="list"), "runs": runs}
    del content["vary"]
    (tmp_path / "a.yaml").write_text(json.dumps(content))
    done = CliRunner().invoke(main, ["study", str(tmp_path / "a.yaml"), "--output", str(tmp_path / "out")])
    assert done.exit_code == 1 and "1 converged, 1 failed, 1 stopped" in done.output, done.output
    good, bad, short = nhgd.Study.load(tmp_path / "out").rows
    assert (good["status"], bad["status"], short["status"]) == ("converged", "failed", "stopped")
    assert bad["objective"] is None and "conductivity" in bad["message"]
    # A run that has failed is made again only if that is asked for.
    content["runs"][1] = {"pde.conductivity": "x + 0.5"}
    again = nhgd.study(content, output=tmp_path / "out", resume=True)
    assert [row["status"] for row in again.rows] == ["converged", "converged", "stopped"]


# The same rows, however they are made


def test_one_and_two_processes_give_the_same_rows(tmp_path: Path) -> None:
    alone = nhgd.study(grid(), output=tmp_path / "one")
    shared = nhgd.study(grid(), output=tmp_path / "two", processes=2)
    assert alone.complete and comparable(alone.rows) == comparable(shared.rows)
    for row in alone.rows:
        ours, theirs = (
            json.loads((each.folder / row["folder"] / "summary.json").read_text()) for each in (alone, shared)
        )
        assert ours["gradient_norm"] == theirs["gradient_norm"] and ours["solves"] == theirs["solves"]


def test_chains_of_a_continuation_do_not_depend_on_processes(tmp_path: Path) -> None:
    content = grid(kind="continuation", vary={"objective.1.weight": [1e-3, 1e-4, 1e-5], "element": ["P1", "P2"]})
    alone = nhgd.study(content, output=tmp_path / "one")
    assert comparable(alone.rows) == comparable(nhgd.study(content, output=tmp_path / "two", processes=2).rows)
    by_number = {row["run"]: row for row in alone.rows}
    for row in alone.rows[2:]:
        before = by_number[row["run"] - 2]
        assert row["start"] == before["folder"] and row["element"] == before["element"]


def test_a_chain_goes_on_past_a_run_without_an_answer_and_over_another_mesh(tmp_path: Path) -> None:
    content = grid(kind="continuation", vary={"pde.conductivity": [1, "x - 0.5", 1.1]})
    rows = nhgd.study(content, output=tmp_path / "out").rows
    assert [row["status"] for row in rows] == ["converged", "failed", "converged"]
    assert rows[2]["start"] == rows[0]["folder"]
    content = grid(kind="continuation", vary={"mesh.cells": [[4, 4], [6, 6]]}, overrides={})
    rows = nhgd.study(content, output=tmp_path / "meshes").rows
    assert rows[1]["status"] == "converged" and "cold start: the control before has 25 values" in rows[1]["start"]
    content = grid(kind="continuation", vary={"mesh.cells": [[8, 2], [2, 8]]}, overrides={})
    rows = nhgd.study(content, output=tmp_path / "turned").rows
    assert rows[1]["start"] == "cold start: the control before is that of another mesh"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> nhgd.Study:
    """The study of `slow`, from its beginning to its end."""
    folder = tmp_path_factory.mktemp("slow")
    return nhgd.study(slow(folder), output=folder / "whole")


@linux
def test_a_worker_that_is_killed_is_replaced_and_its_run_goes_on(whole: nhgd.Study, tmp_path: Path) -> None:
    file = slow(tmp_path)
    process = started(file, tmp_path / "out", "--processes", "2")
    folder, worker = busy(tmp_path / "out", process)
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate()
    assert f"{folder.name}: the process that made it (process {worker}) was killed by signal 9" in err, (out, err)
    rows = nhgd.Study.load(tmp_path / "out").rows
    assert comparable(rows, "attempts", *WORK) == comparable(whole.rows, "attempts", *WORK)
    assert {row["folder"]: row["attempts"] for row in rows}[folder.name] == 2
    assert "resumed" in (folder / "run.log").read_text()


@linux
@pytest.mark.parametrize(
    ("processes", "number"),
    [
        ("1", signal.SIGTERM),
        ("2", signal.SIGINT),
        ("2", signal.SIGKILL),
        pytest.param("1", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("1", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("2", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_study_that_is_ended_goes_on_where_it_was(
    processes: str, number: signal.Signals, whole: nhgd.Study, tmp_path: Path
) -> None:
    file = slow(tmp_path)
    process = started(file, tmp_path / "out", "--processes", processes)
    folder, _ = busy(tmp_path / "out", process)
    process.send_signal(number)
    out, err = process.communicate()
    assert "Traceback" not in err, err
    if number != signal.SIGKILL:
        assert process.returncode == 1 and "--resume goes on" in out, (out, err)
        assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("0*/summary.json")}
    over = [row for row in nhgd.Study.load(tmp_path / "out").rows if row["status"] in ("converged", "stopped")]
    # Another number of processes may go on; SIGTERM has the same one.
    again = int(processes) if number == signal.SIGTERM else 1
    resumed = nhgd.study(file, output=tmp_path / "out", resume=True, processes=again)
    assert comparable(resumed.rows, *WORK) == comparable(whole.rows, *WORK)
    assert all(a["solves"] <= b["solves"] + 4 for a, b in zip(resumed.rows, whole.rows, strict=True))
    assert "resumed" in (folder / "run.log").read_text()
    for row in over:
        path = tmp_path / "out" / row["folder"] / "summary.json"
        assert path.stat().st_mtime_ns == kept[path]


def test_two_studies_do_not_share_a_folder(tmp_path: Path) -> None:
    file = slow(tmp_path)
    process = started(file, tmp_path / "out")
    busy(tmp_path / "out", process)
    with pytest.raises(nhgd.OutputError, match="another run writes to this folder"):
        nhgd.study(file, output=tmp_path / "out", resume=True)
    process.terminate()
    process.communicate()


def test_proposals_of_optuna_do_not_depend_on_processes_or_interruptions(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    vary = {"objective.1.weight": {"log": [1e-6, 1e-3]}, "element": ["P1", "P2"], "mesh.cells": [[4, 4], [5, 5]]}
    content = grid(kind="optuna", vary=vary, trials=6, batch=2, minimise="tracking", overrides={})
    alone = nhgd.study(content, output=tmp_path / "one")
    assert len(alone.rows) == 6 and alone.complete
    asked = []

    def interrupted() -> bool:
        asked.append(1)
        return len(nhgd.Study.load(tmp_path / "two").rows) >= 3 if (tmp_path / "two" / "study.json").exists() else False

    cut = nhgd.study(content, output=tmp_path / "two", interrupted=interrupted)
    assert not cut.complete and len(cut.rows) < 6
    resumed = nhgd.study(content, output=tmp_path / "two", processes=2, resume=True)
    assert comparable(resumed.rows) == comparable(alone.rows)
    best = min(alone.rows, key=lambda row: row["unweighted_tracking"])
    assert alone.findings["best"] == best["run"]


CLUSTER = """
import sys
import nhgd_pde as nhgd
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        study = nhgd.study(sys.argv[1], output=sys.argv[2], scheduler=cluster.scheduler_address)
        assert study.complete, study.table()
"""


def test_a_cluster_gives_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    (tmp_path / "a.yaml").write_text(json.dumps(grid()))
    (tmp_path / "cluster.py").write_text(CLUSTER)
    alone = nhgd.study(tmp_path / "a.yaml", output=tmp_path / "one")
    command = [sys.executable, str(tmp_path / "cluster.py"), str(tmp_path / "a.yaml"), str(tmp_path / "out")]
    environment = {**ONE_THREAD, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert comparable(nhgd.Study.load(tmp_path / "out").rows) == comparable(alone.rows)


# What the kinds find


def test_latin_hypercube_samples_meet_every_share_once() -> None:
    vary = {"a": {"log": [1e-4, 1.0]}, "b": {"linear": [2, 4]}, "c": ["x", "y"]}
    spec = read_study(grid(kind="latin_hypercube", vary=vary, samples=8, seed=3)).spec
    rows = [run.settings for run in planned(spec)]
    a = np.sort([math.log(row["a"] / 1e-4) / math.log(1e4) for row in rows])
    b = np.sort([(row["b"] - 2) / 2 for row in rows])
    for shares in (a, b):
        assert np.floor(shares * 8).tolist() == list(range(8))
    assert sum(row["c"] == "x" for row in rows) == 4
    assert rows == [run.settings for run in planned(spec)]


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("sizes", [(1.0, 0.5, 0.25), (0.7, 0.3, 0.2)])
def test_orders_are_exact_for_powers(order: float, sizes: tuple[float, float, float]) -> None:
    assert observed_order(sizes, [3.0 - 0.2 * h**order for h in sizes]) == pytest.approx(order, rel=1e-6)


@pytest.mark.parametrize("values", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.5, 3.0)])
def test_values_that_do_not_converge_have_no_order(values: tuple[float, float, float]) -> None:
    assert observed_order((1.0, 0.5, 0.25), values) is None


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_a_refinement_finds_the_orders_of_the_elements(element: str, tmp_path: Path) -> None:
    """Objective and control of P1 elements are of order 2; the objective of P2 elements is of order 4."""
    fine, weight = (32, 1e-6) if element == "P1" else (16, 1e-4)
    cells = [[n, n] for n in (fine // 4, fine // 2, fine)]
    content = {
        "study": "orders",
        "problem": POISSON,
        "kind": "refinement",
        "vary": {"mesh.cells": cells},
        # With the target at quadrature points P1 elements have their order on finer meshes than these.
        "overrides": {"element": element, "objective.1.weight": weight, "objective.0.target_at": "nodes"},
    }
    study = nhgd.study(content, output=tmp_path / "out")
    wanted = 2.0 if element == "P1" else 4.0
    assert study.findings["objective"]["orders"][-1] == pytest.approx(wanted, abs=0.25)
    if element == "P1":
        assert study.findings["control_norm"]["orders"][-1] == pytest.approx(2.0, abs=0.1)
    # The target is an eigenfunction of -Lap, with the eigenvalue 8 pi^2.
    a = weight * (8.0 * math.pi**2) ** 2
    exact = 0.125 * a / (1.0 + a)
    assert study.findings["objective"]["limit"] == pytest.approx(exact, rel=1e-3)


def test_the_corner_of_a_curve_is_where_its_curvature_is_largest() -> None:
    """In logarithms, x = e^t and y = e^-t is a hyperbola, whose vertex is at t = 0."""
    weights = np.exp(np.linspace(-2.0, 2.0, 17))
    t = np.log(weights)
    assert corner(weights, np.exp(np.exp(t)), np.exp(np.exp(-t))) == pytest.approx(1.0, rel=0.03)
    # Turned around, the curve bends away from the origin.
    assert corner(weights, np.exp(-np.exp(-t)), np.exp(-np.exp(t))) is None
    assert corner(weights[:3], weights[:3], 1 / weights[:3]) is None


def test_the_l_curve_of_tikhonov_has_its_corner_between_noise_and_smoothing() -> None:
    """min |A v - b|^2 + w |v|^2 for a diagonal A that decays: the corner's error is near the least of all weights."""
    generator = np.random.default_rng(0)
    singular = 10.0 ** -np.linspace(0.0, 6.0, 40)
    exact = np.ones(40)
    data = singular * exact + 1e-4 * generator.standard_normal(40)
    weights = np.logspace(-14, 1, 61)
    answers = [singular * data / (singular**2 + w) for w in weights]
    misfits = [float(((singular * v - data) ** 2).sum()) for v in answers]
    found = corner(weights, misfits, [float((v**2).sum()) for v in answers])
    assert found is not None
    errors = [float(np.linalg.norm(v - exact)) for v in answers]
    at_corner = errors[int(np.argmin(np.abs(np.log(weights / found))))]
    assert at_corner < 1.5 * min(errors) and max(errors) > 10.0 * min(errors)


def test_the_front_has_what_nothing_is_better_than() -> None:
    generator = np.random.default_rng(1)
    values = generator.integers(0, 6, (60, 3)).astype(float)
    wanted = [
        not any(all(b <= a for a, b in zip(row, other, strict=True)) and list(other) != list(row) for other in values)
        for row in values
    ]
    assert front(values).tolist() == wanted and 0 < sum(wanted) < 60


def test_a_study_of_weights_is_a_pareto_front(tmp_path: Path) -> None:
    """The optima for different weights do not dominate each other; with half of the gain they are dominated."""
    vary = {"objective.1.weight": [1e-6, 1e-5, 1e-4], "control.gain": [1, 0.5]}
    study = nhgd.study(grid(kind="pareto", vary=vary), output=tmp_path / "out")
    strong = {row["run"] for row in study.rows if row["control.gain"] == 1}
    assert strong <= set(study.findings["runs"])
    assert study.findings["of"] == ["tracking", "regularisation"]


def test_a_time_step_is_refined(tmp_path: Path) -> None:
    content = {
        "study": "steps",
        "problem": str(ROOT / "problems" / "heat_control.yaml"),
        "kind": "refinement",
        "vary": {"time.steps": [8, 16, 32]},
        "overrides": {"mesh.cells": 12},
    }
    study = nhgd.study(content, output=tmp_path / "out")
    assert study.findings["sizes"] == [1 / 8, 1 / 16, 1 / 32] and study.complete


def test_tasks_and_populations_are_studied_too(tmp_path: Path) -> None:
    task = {
        "study": "cleaning",
        "problem": str(ROOT / "problems" / "digits_cleaning.yaml"),
        "kind": "list",
        "runs": [{"seed": 0}, {"seed": 1}],
        "overrides": {"outer.iterations": 2},
    }
    study = nhgd.study(task, output=tmp_path / "task")
    assert study.complete and {row["control_norm"] for row in study.rows} == {None}
    heaters = {
        "study": "heaters",
        "problem": str(ROOT / "problems" / "switched_heaters.yaml"),
        "kind": "grid",
        "vary": {"method": ["nhgd", "hpm"]},
        "overrides": {"mesh.cells": 16, "population.members": 3, "population.generations": 1},
    }
    alone, searched = nhgd.study(heaters, output=tmp_path / "heaters").rows
    assert searched["objective"] <= alone["objective"] * (1 + 1e-9)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_are_right(path: Path) -> None:
    study = read_study(path)
    files = study.checked([run.settings for run in planned(study.spec)])
    assert study.spec.study == path.stem and len(files) >= 4
    assert (
        study.dump()
        and read_study(
            {
                **study.spec.model_dump(mode="python"),
                "vary": study.spec.vary
                and {
                    key: each.written
                    for key, each in study.spec.vary.items()  # type: ignore[attr-defined]
                },
            }
        ).spec.kind
        == study.spec.kind
    )


def test_the_command_shows_a_line_a_run_and_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(json.dumps(grid()))
    done = CliRunner().invoke(main, ["study", str(tmp_path / "a.yaml"), "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 6 + 1 + 6 + 2 and lines[0].startswith("0001_weight=1e-05_element=P1: converged, objective")
    assert "figure.png" in lines[-1] and lines[-2].startswith("smallest objective: ")


def test_a_line_of_values_is_drawn_for_every_kind(tmp_path: Path) -> None:
    for name, vary in {
        "one": {"objective.1.weight": [1e-4, 1e-3]},
        "two": {"objective.1.weight": [1e-4, 1e-3], "pde.conductivity": [1, 2]},
        "three": {"objective.1.weight": [1e-4, 1e-3], "pde.conductivity": [1, 2], "element": ["P1", "P2"]},
        "same": {"element": ["P1"]},
    }.items():
        study = nhgd.study(grid(study=name, vary=vary), output=tmp_path / name)
        assert study.plot().axes and (study.folder / "figure.png").stat().st_size > 5000


PAGE = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", re.findall(r"<!-- study -->\n```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_studies_of_the_page_are_right(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "a.yaml").write_text(text)
    study = read_study(tmp_path / "a.yaml")
    assert study.checked([run.settings for run in planned(study.spec)])


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"<!-- example: run by the tests -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "problems").symlink_to(ROOT / "problems")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/studies.md", "exec"), names)
    assert names["study"].complete and names["misfits"] == sorted(names["misfits"])
    assert list(names["again"].rows) == list(names["study"].rows) and all(each.is_dir() for each in names["folders"])


def test_the_page_has_every_kind_and_key() -> None:
    for kind, spec in KINDS.items():
        assert f"`{kind}`" in PAGE
        for key in spec.model_fields:
            assert f"`{key}`" in PAGE or f"`{key}:" in PAGE, key


def test_processes_that_have_no_work_yet_end_with_the_team() -> None:
    """They are started ahead of the checks of a study, which may find mistakes."""
    team = Processes(3, lambda sentence: None)
    team.start(2)
    started = [each.start() for each in team._workers[:2]]
    assert all(each.poll() is None for each in started) and team._workers[2]._process is None
    team.close()
    assert all(each.poll() is not None for each in started)


@pytest.mark.slow
def test_the_benchmark_compares_equal_rows(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.studies import main as compare

    compare(2, 6)
    assert "equal rows" in capsys.readouterr().out
