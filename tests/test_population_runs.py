"""`method: hpm` in a problem file: what a run says, what it resumes from, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import nhgd_pde as nhgd
from nhgd_pde.bench.contenders import Contender
from nhgd_pde.bench.trials import Task
from nhgd_pde.cli import main
from nhgd_pde.output.sealed import read_sealed, write_sealed
from nhgd_pde.output.storage import OutputError
from nhgd_pde.problem_file.errors import ProblemError
from tests.processes import ONE_THREAD, await_end, child_of, linux, wait_for

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "problems" / "switched_heaters.yaml"
PAGE = (ROOT / "docs" / "population.md").read_text(encoding="utf-8")
SMALL: dict[str, Any] = {"mesh.cells": 10, "population.members": 3, "population.generations": 3, "population.steps": 8}
SETTINGS = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]


def loaded(**more: Any) -> nhgd.Problem:
    return nhgd.load(SHIPPED, {**SMALL, **{key.replace("__", "."): value for key, value in more.items()}})


def after(asked: int) -> Callable[[], bool]:
    """An interruption when the run has asked so many times whether there is one."""
    count = iter(range(10**9))
    return lambda: next(count) >= asked


def same(ours: nhgd.Solution, other: nhgd.Solution) -> None:
    """Checks that two runs have the same numbers, bit for bit."""
    assert ours.status == other.status and ours.objective == other.objective
    assert np.array_equal(ours.control, other.control) and np.array_equal(ours.state, other.state)
    assert timeless(ours.stats["population"]) == timeless(other.stats["population"])
    assert [row["objective"] for row in ours.history] == [row["objective"] for row in other.history]


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "seconds"}


@pytest.fixture(scope="module")
def whole() -> nhgd.Solution:
    return nhgd.solve(loaded())


def test_a_run_says_what_the_population_and_multistart_have_found(tmp_path: Path) -> None:
    said: list[str] = []
    found = nhgd.solve(loaded(), output=tmp_path / "run", note=said.append)
    assert found.status == "converged" and found.complete
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["method"] == "hpm"
    population = summary["population"]
    assert population["ended"] and population["generations"] == 3
    starts = population["multistart"]
    assert starts["evaluations"] >= population["evaluations"] > 0 and starts["starts"] >= 2
    # The run starts from the better design of both, and does not end above it.
    best = min(population["objective"], starts["objective"])
    assert found.history[0]["objective"] == pytest.approx(best, rel=1e-9)
    assert found.objective <= best * (1.0 + 1e-12)
    assert [each.split(":")[0] for each in said[:4]] == [f"generation {k} of 3" for k in range(4)]
    log = (tmp_path / "run" / "run.log").read_text()
    assert all(each in log for each in said)
    for text in (said[-1], found.message):
        assert "population search: objective" in text and "multi-start:" in text and "evaluations" in text
    assert found.stats["solves"]["solves"] > population["evaluations"]
    assert population["seconds"] <= summary["seconds"]


@pytest.mark.parametrize("asked", [0, 20, 85, 200, 10**6])
def test_a_search_that_is_interrupted_is_resumed_bit_for_bit(asked: int, tmp_path: Path, whole: nhgd.Solution) -> None:
    folder = tmp_path / "run"
    first = nhgd.solve(loaded(), output=folder, interrupted=after(asked))
    interrupted = asked < 10**6
    assert first.status == ("interrupted" if interrupted else "converged")
    assert first.stats["population"]["ended"] is not interrupted
    if interrupted:
        assert "asked to end" in first.message and (folder / "final.vtu").is_file()
    same(nhgd.solve(loaded(), output=folder, resume=True), whole)
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + len(whole.history)


def test_a_run_that_is_interrupted_after_the_search_does_not_search_again(tmp_path: Path) -> None:
    rough = {"population__rtol": 0.9, "population__steps": 1}
    whole = nhgd.solve(loaded(**rough))
    assert whole.stats["outer_iterations"] > 2
    rows: list[Any] = []
    first = nhgd.solve(loaded(**rough), rows.append, tmp_path / "run", lambda: len(rows) > 1)
    assert first.status == "interrupted" and first.stats["population"]["ended"]
    said: list[str] = []
    same(nhgd.solve(loaded(**rough), output=tmp_path / "run", resume=True, note=said.append), whole)
    assert not said


def test_a_search_is_interrupted_again_and_again(tmp_path: Path, whole: nhgd.Solution) -> None:
    folder = tmp_path / "run"
    found = nhgd.solve(loaded(), output=folder, interrupted=after(50))
    times = 1
    while found.status == "interrupted":
        assert times < 50, "the search makes no progress"
        found = nhgd.solve(loaded(), output=folder, resume=True, interrupted=after(50))
        times += 1
    assert times > 2
    same(found, whole)


def test_a_second_request_ends_the_search_at_once(tmp_path: Path, whole: nhgd.Solution) -> None:
    asked = after(70)

    def stop() -> bool:
        if asked():
            raise KeyboardInterrupt
        return False

    first = nhgd.solve(loaded(), output=tmp_path / "run", interrupted=stop)
    assert first.status == "interrupted"
    same(nhgd.solve(loaded(), output=tmp_path / "run", resume=True), whole)


def test_a_keyboard_interrupt_ends_the_run_even_if_nobody_asks(tmp_path: Path) -> None:
    """As in a notebook: the run must not go on from an unfinished search as if nothing had happened."""
    said: list[str] = []

    def note(sentence: str) -> None:
        said.append(sentence)
        if len(said) == 2:
            raise KeyboardInterrupt

    found = nhgd.solve(loaded(), output=tmp_path / "run", note=note)
    assert found.status == "interrupted" and found.stats["outer_iterations"] == 0
    assert found.stats["population"]["generations"] == 1


def test_members_in_processes_have_the_numbers_of_one_process(tmp_path: Path, whole: nhgd.Solution) -> None:
    shared = nhgd.solve(loaded(population__processes=2), output=tmp_path / "run")
    same(shared, whole)
    assert shared.stats["solves"]["solves"] > shared.stats["population"]["evaluations"]


@linux
def test_a_run_that_is_killed_in_the_search_is_resumed_bit_for_bit(tmp_path: Path, whole: nhgd.Solution) -> None:
    """Also with another number of processes; those of the killed run end with it."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "nhgd_pde", "solve", str(SHIPPED), *SETTINGS, "--output", str(folder), "-q"]
    run = subprocess.Popen(
        [*command, "--set", "population.processes=2"], env=ONE_THREAD, cwd=ROOT, text=True, stdout=subprocess.DEVNULL
    )

    def first_generation() -> bool:
        assert run.poll() is None, "the run has ended"
        path = folder / "population.pt"
        return path.exists() and read_sealed(path)["population"] is not None

    wait_for(first_generation, "no generation has ended")
    helper = child_of(run)
    run.send_signal(signal.SIGKILL)
    run.wait()
    await_end(helper)
    assert not (folder / "summary.json").exists() and not (folder / "checkpoint.pt").exists()
    same(nhgd.solve(loaded(), output=folder, resume=True), whole)


@pytest.mark.slow
@linux
def test_a_process_of_a_member_that_dies_ends_the_run_in_a_sentence(tmp_path: Path, whole: nhgd.Solution) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "nhgd_pde", "solve", str(SHIPPED), *SETTINGS, "--output", str(folder)]
    run = subprocess.Popen(
        [*command, "--set", "population.processes=2"], env=ONE_THREAD, cwd=ROOT, text=True, stdout=subprocess.PIPE
    )
    assert run.stdout is not None
    shown = ""
    while "generation 0 of" not in shown:
        line = run.stdout.readline()
        assert line, "the run has ended"
        shown += line
    for child in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    rest, _ = run.communicate()
    assert run.returncode == 1 and "failed: a process of the population died" in rest
    same(nhgd.solve(loaded(), output=folder, resume=True), whole)


@pytest.mark.slow
@linux
def test_ctrl_c_ends_a_search_with_processes_cleanly(tmp_path: Path, whole: nhgd.Solution) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "nhgd_pde", "solve", str(SHIPPED), *SETTINGS, "--output", str(folder)]
    # A signal to the whole group, as a terminal sends it.
    run = subprocess.Popen(
        [*command, "--set", "population.processes=2", "--set", "population.generations=1000"],
        env=ONE_THREAD,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert run.stdout is not None
    shown = ""
    while "generation 1 of" not in shown:
        line = run.stdout.readline()
        assert line, "the run has ended"
        shown += line
    os.killpg(run.pid, signal.SIGINT)
    rest, errors = run.communicate(timeout=600)
    assert run.returncode == 1 and "Traceback" not in errors
    assert "interrupted" in rest and "--resume goes on with the search" in rest


def test_a_state_of_the_search_that_is_damaged_or_of_another_problem_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    nhgd.solve(loaded(), output=folder, interrupted=after(60))
    with pytest.raises(OutputError, match=r"written with population\.reach = 0\.8, the problem has 0\.5"):
        nhgd.solve(loaded(population__reach=0.5), output=folder, resume=True)
    path = folder / "population.pt"
    content = read_sealed(path)
    member = content["population"]["best"]
    write_sealed(path, {**content, "population": {**content["population"], "best": {**member, "v": member["v"][:4]}}})
    with pytest.raises(OutputError, match="malformed"):
        nhgd.solve(loaded(), output=folder, resume=True)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(OutputError, match=r"population\.pt: not a checkpoint that can be read"):
        nhgd.solve(loaded(), output=folder, resume=True)
    path.unlink()
    with pytest.raises(OutputError, match="expected a checkpoint to resume from, found none"):
        nhgd.solve(loaded(), output=folder, resume=True)


def test_a_new_run_leaves_nothing_of_an_earlier_search(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    nhgd.solve(loaded(), output=folder, interrupted=after(60))
    nhgd.solve(loaded(method="nhgd"), output=folder)
    assert not (folder / "population.pt").exists()
    with pytest.raises(OutputError, match="expected the state of a search to resume, found none"):
        nhgd.solve(loaded(), output=folder, resume=True)


HEAT = {"control.bounds": [-2, 2], "population.members": 2, "population.generations": 1, "population.steps": 3}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("heat_windows_fds", {"mesh.cells": 8, "time.steps": 10, **HEAT}),
        ("heat_control", {"mesh.cells": 8, "time.steps": 5, **HEAT}),
        ("stokes_control", {"mesh.cells": [3, 3], **HEAT}),
        ("sparse_control", {"mesh.cells": [6, 6], **HEAT}),
        ("parameter_fit", {"mesh.cells": [6, 6], **{k: v for k, v in HEAT.items() if "bounds" not in k}}),
    ],
)
def test_controls_in_time_of_vectors_with_l1_terms_and_of_numbers(name: str, overrides: dict[str, Any]) -> None:
    if name == "parameter_fit":
        data = nhgd.load(ROOT / "problems" / f"{name}.yaml").file.spec.keyed_controls
        overrides = {**overrides, **{f"{key}.bounds": [0.1, 4.0] for key, _ in data}}
    problem = nhgd.load(ROOT / "problems" / f"{name}.yaml", {"method": "hpm", "outer.iterations": 3, **overrides})
    found = nhgd.solve(problem)
    assert found.status in ("converged", "stopped"), found.message
    population = found.stats["population"]
    best = min(population["objective"], population["multistart"]["objective"])
    assert found.history[0]["objective"] == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("poisson_control", {}, "control.bounds: expected two bounds with method hpm, which draws designs at random"),
        ("poisson_bounds", {"control.bounds": [0, None]}, "found [0, null]: give bounds: [lower, upper]"),
        ("robust_poisson", {}, "method: expected a method for random inputs, found 'hpm'"),
        ("state_constraint", {"control.bounds": [-9, 9]}, "constraints: expected none with method hpm"),
        (
            "heat_sink",
            {"constraints": [], "control.penalty": [1, 3]},
            "control: expected a problem of one stage with method hpm",
        ),
        ("poisson_network", {"control.bounds": [-9, 9]}, "state: expected none with method hpm"),
        ("digits_cleaning", {}, "method: expected a method for tasks, found 'hpm'"),
        ("switched_heaters", {"control.bounds": ["0", "where(x < 0.5, 0, 1)"]}, "expected finite bounds with lower"),
        (
            "switched_heaters",
            {"population.members": 1},
            "population.members: expected a whole number of at least 2, found 1",
        ),
        ("switched_heaters", {"population.replaced": 1}, "population.replaced: expected"),
        ("switched_heaters", {"population.generation": 3}, "population.generation"),
    ],
)
def test_what_a_population_does_not_take_is_refused(name: str, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(words)):
        nhgd.load(ROOT / "problems" / f"{name}.yaml", {"method": "hpm", **overrides})


def test_a_mistake_is_reported_with_its_line_and_exit_code_2(tmp_path: Path) -> None:
    text = SHIPPED.read_text().replace("bounds: [0, 1]", "bounds: [0, null]")
    path = tmp_path / "heaters.yaml"
    path.write_text(text)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "bounds" in each)
    result = CliRunner().invoke(main, ["check", str(path)])
    assert result.exit_code == 2
    assert f"{path}:{line}: control.bounds: expected two bounds with method hpm" in result.output


@pytest.mark.parametrize("option", ["--roles", "--ranks"])
def test_roles_and_ranks_are_refused(option: str) -> None:
    result = CliRunner().invoke(main, ["solve", str(SHIPPED), *SETTINGS, option, "2"])
    assert result.exit_code == 2, result.output
    assert "expected nhgd in a run of two roles, found 'hpm'" in result.output or "random inputs" in result.output


def test_bench_refuses_it() -> None:
    with pytest.raises(ProblemError, match="expected a method with one start in a comparison, found 'hpm'"):
        Task(SHIPPED, SMALL).build(Contender("hpm", "hpm"))


def test_processes_that_would_not_fit_are_refused() -> None:
    assert "processes of members" in loaded(population__processes=3).report()
    assert loaded(devices__memory=2e9).report().count("processes") == 0
    with pytest.raises(ProblemError, match=r"population\.processes: expected a problem that fits into memory"):
        loaded(devices__memory=2e9, population__processes=8)


def test_check_and_list_name_it() -> None:
    assert "a population of 3 in 3 generations" in str(loaded())
    assert "hpm" in CliRunner().invoke(main, ["list"]).output


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"<!-- example: run by the tests -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problems").symlink_to(ROOT / "problems")
    exec(compile(example, "docs/population.md", "exec"), {"__name__": "example"})
