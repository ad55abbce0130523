"""Ranks that share scenarios give the numbers of one process, exchange little data, and end together."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from filelock import FileLock
from processes import NEVER, ONE_THREAD, await_checkpoint, await_end, child_of, linux

import nhgd_pde as nhgd
from nhgd_pde.engine.roles.failures import RanksPartedError
from nhgd_pde.output.fields import read_vtu
from nhgd_pde.output.sealed import read_sealed
from nhgd_pde.problem_file.errors import Issue, ProblemError
from nhgd_pde.run.launcher import ProcessPlace

PROBLEM = Path(__file__).parents[1] / "problems" / "robust_poisson.yaml"
SMALL: dict[str, Any] = {
    "mesh.cells": [8, 8],
    "scenarios.count": 48,
    "scenarios.batch": 8,
    "scenarios.validation": 20,
}
ALL = {"scenarios.strategy": "all"}
CVAR = {"risk": {"cvar": 0.8}}
STREAM = {"scenarios.strategy": "streaming", "outer.iterations": 12}
CASES: dict[str, dict[str, Any]] = {
    "growing, mean": {},
    "all, mean": ALL,
    "growing, cvar": CVAR,
    "all, cvar": {**ALL, **CVAR},
    "streaming, mean": STREAM,
    "streaming, cvar": {**STREAM, **CVAR},
    "two meshes, mean": {"scenarios.levels": 2},
    "two meshes, cvar": {"scenarios.levels": 2, **CVAR},
    "as few as two": {"scenarios.count": 2, "scenarios.validation": 0},
}
SHORT = {"outer.iterations": 4, "scenarios.validation": 0}
VOLUMES = {
    (strategy, count): {**SHORT, "scenarios.count": count, "scenarios.strategy": strategy, "scenarios.batch": "auto"}
    for strategy in ("all", "growing")
    for count in (80, 160)
}
# The cases that 2 and 4 ranks solve: either number has every strategy and both measures, and every case is solved by
# one of them. Four ranks are more than the two scenarios of the last case.
SHARED: dict[int, list[str]] = {
    2: ["growing, cvar", "all, mean", "streaming, cvar", "two meshes, cvar", "as few as two"],
    4: ["growing, mean", "all, cvar", "streaming, mean", "two meshes, mean", "as few as two"],
}
# The numbers of ranks in the first five iterations and in the others.
RESUMED = [(2, 1), (1, 4)]


def solve(
    settings: dict[str, Any], place: ProcessPlace | None, folder: Path | None = None, resume: bool = False
) -> Any:
    problem = nhgd.load(PROBLEM, {**SMALL, **settings})
    return nhgd.solve(problem, output=folder, resume=resume, place=place)


def member(rank: int, size: int, folder: str) -> None:
    """One rank of a run with `size` ranks; the first rank writes the results."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / f"store of {size}"), size)
    found: dict[Any, Any] = {}

    def place(name: Any) -> ProcessPlace:
        return ProcessPlace(rank, size, rank, size, lambda: dist.PrefixStore(str(name), store))

    shared = {name: CASES[name] for name in SHARED[size]}
    for name, settings in {**shared, **(VOLUMES if size == 2 else {})}.items():
        solution = solve(settings, place(name))
        found[name] = numbers(solution)
    for first, then in RESUMED:
        path = Path(folder) / f"{first} {then}"
        if size == first:
            solve({"outer.iterations": 5}, place(path), path)
        if size == then:
            found[first, then] = numbers(solve({}, place(path), path, resume=True))
    found["protocol"] = exchanged(place("protocol"))
    torch.save(found, Path(folder) / f"{size}-{rank}.pt")


def exchanged(place: ProcessPlace) -> dict[str, Any]:
    """The results of exchanges on a rank; one fails on the last rank, and in another the last rank is missing."""
    found: dict[str, Any] = {}
    last = place.rank == place.size - 1
    with place.team(torch.device("cpu")) as team:
        own = team.own(torch.arange(7))
        found["collected"] = team.collected(10.0 * own[:, None].double())
        found["joined"] = team.joined(own.double(), own, 7)
        found["told"] = team.first_message("it is singular" if last else "")
        found["decided"] = team.decided(not last)
        try:
            with team.together():
                if last:
                    raise ProblemError([Issue("pde.conductivity", "expected more than 0 in scenario 3", "here")])
        except ProblemError as error:
            found["raised"] = str(error)
        try:
            team.summed([torch.ones(2, dtype=torch.float64)], torch.ones(3) * (1.001 if last else 1.0))
        except RanksPartedError as error:
            found["parted"] = str(error)
    return found


def numbers(solution: Any) -> dict[str, Any]:
    """The numbers that are equal on all ranks."""
    grid = {name: values for name, values in solution.fields()[1].point.items() if name != "sensitivity"}
    return {"stats": dict(solution.stats), "control": solution.control, "state": solution.state, "fields": grid}


def in_ranks(work: Any, size: int, folder: Path) -> None:
    """Runs a function of rank, size and folder in `size` processes."""
    torch.multiprocessing.start_processes(work, (size, str(folder)), size, start_method="spawn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of 2 and 4 ranks, which take a minute: processes of pytest-xdist that share the tests share them."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ranks"
    with FileLock(f"{path}.lock"):
        if not (path / "done").exists():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            solve({"outer.iterations": 5}, None, path / "1 4")
            for size in (2, 4):
                in_ranks(member, size, path)
            (path / "done").touch()
    return path


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[int, Any]:
    """The results of 1, 2 and 4 ranks in every case."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = {name: numbers(solve(settings, None)) for name, settings in CASES.items()}
    torch.set_num_threads(threads)
    return {1: alone, **{size: torch.load(folder / f"{size}-0.pt", weights_only=False) for size in (2, 4)}}


def arguments(folder: Path, settings: dict[str, Any], *more: str) -> list[str]:
    options = [part for key, value in {**SMALL, **settings}.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return ["-m", "nhgd_pde", "solve", str(PROBLEM), *options, "--no-figure", "--output", str(folder), *more]


def command(folder: Path, settings: dict[str, Any], *more: str) -> list[str]:
    return [sys.executable, *arguments(folder, settings, "--ranks", "2", *more)]


def fields(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in read_vtu(folder / "final.vtu")[1].point.items()}


def assert_close(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Compares the control, and the fields of the states of all scenarios, to ten digits."""
    assert ours["stats"]["status"] == theirs["stats"]["status"]
    assert theirs["stats"]["objective"] == pytest.approx(ours["stats"]["objective"], rel=1e-12)
    assert ours["fields"].keys() == theirs["fields"].keys() >= {"state", "state_std"}
    pairs = [(ours["control"], theirs["control"]), (ours["state"], theirs["state"])]
    for one, other in (*pairs, *((ours["fields"][name], theirs["fields"][name]) for name in ours["fields"])):
        assert one.shape == other.shape and np.abs(one - other).max() <= 1e-10 * np.abs(one).max()


@pytest.mark.slow
@pytest.mark.parametrize(("case", "size"), [(case, size) for size in SHARED for case in SHARED[size]])
def test_one_two_and_four_ranks_give_the_same_control(case: str, size: int, found: dict[int, Any]) -> None:
    one, other = found[1][case], found[size][case]
    assert_close(one, other)
    ours, theirs = one["stats"], other["stats"]
    assert (
        ours["status"] == ("stopped" if "streaming" in case else "converged")
        and ours["ranks"]["count"] == 1
        and theirs["ranks"]["count"] == size
    )
    assert ours["evaluations"] == theirs["evaluations"]
    # The counts include the work of all ranks.
    assert ours["solves"]["solves"] == theirs["solves"]["solves"]
    if ours["uncertainty"]["fresh_scenarios"]:
        fresh = ours["uncertainty"]["out_of_sample"]
        assert theirs["uncertainty"]["out_of_sample"] == pytest.approx(fresh, rel=1e-10)


@pytest.mark.slow
def test_the_data_exchanged_in_a_step_does_not_grow_with_the_scenarios(found: dict[int, Any]) -> None:
    sizes = found[2]["all", 80]["stats"]
    p, n = sizes["control_dofs"], sizes["state_dofs"]
    for (strategy, combinations), count in itertools.product((("all", (0,)), ("growing", (32, 33))), (80, 160)):
        ranks = found[2][strategy, count]["stats"]["ranks"]
        # One exchange has the hypergradient, the residuals of both equations in two sums, two counts of steps of both
        # ranks, four numbers each on the errors of states and of adjoints, and six counts of work. Another one has
        # combinations of hypergradients for the sampling error, one more with fresh scenarios. The larger one is
        # reported.
        sweep = p + 4 * n + 2 * (2 + 4 + 4) + 6
        assert ranks["bytes_a_sweep"] in {8 * max(sweep, each * p) for each in combinations}
        assert ranks["bytes_an_evaluation"] <= 3 * ranks["bytes_a_sweep"]
    # There is also one number for each scenario.
    few, many = (found[2]["all", count]["stats"]["ranks"]["bytes_of_values"] / (8 * count) for count in (80, 160))
    assert few == int(few) and many == int(many) and max(few, many) <= 3 * 5 + 1


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), RESUMED)
def test_a_run_is_resumed_by_any_number_of_ranks(first: int, then: int, folder: Path, found: dict[int, Any]) -> None:
    whole = found[1]["growing, mean"]
    rest = numbers(solve({}, None, folder / f"{first} 1", resume=True)) if then == 1 else found[then][first, then]
    assert_close(whole, rest)
    assert rest["stats"]["evaluations"] == whole["stats"]["evaluations"]
    assert rest["stats"]["solves"]["solves"] == pytest.approx(whole["stats"]["solves"]["solves"], abs=100)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_an_error_of_one_rank_reaches_all_ranks(size: int, folder: Path) -> None:
    every = [torch.load(folder / f"{size}-{rank}.pt", weights_only=False)["protocol"] for rank in range(size)]
    assert torch.equal(every[0]["collected"][:, 0], 10.0 * torch.arange(7))
    assert all(len(each["collected"]) == 0 for each in every[1:])
    for each in every:
        assert torch.equal(each["joined"], torch.arange(7).double())
        assert each["told"] == "it is singular" and each["decided"] is True
        assert each["raised"] == every[-1]["raised"] and "in scenario 3" in each["raised"]
        assert "have parted" in each["parted"]


@pytest.mark.slow
def test_torchrun_starts_the_ranks(tmp_path: Path, found: dict[int, Any]) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, *arguments(tmp_path / "two", CASES["as few as two"])],
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=NEVER,
    )
    assert done.returncode == 0 and done.stdout.count("2 ranks") == 1, done.stderr
    for name, values in fields(tmp_path / "two").items():
        expected = found[1]["as few as two"]["fields"].get(name, values)
        assert np.abs(values - expected).max() <= 1e-10 * np.abs(expected).max()


# Faults

# A run that no stopping rule ends, so that it is still going on when a process is killed.
LONG = {
    **ALL,
    "outer.method": "gradient",
    "outer.step": 1e-3,
    "outer.iterations": 1_000_000,
    "outer.rtol": 1e-14,
    "output.checkpoint": 1,
}


def begin(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, LONG), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ONE_THREAD
    )


@pytest.mark.slow
@linux
@pytest.mark.parametrize("when", ["starting", "running"])
def test_a_rank_that_dies_ends_the_run_with_its_name(when: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = begin(folder)
    child = child_of(process)
    if when == "running":
        await_checkpoint(process, folder)
    os.kill(child, signal.SIGKILL)
    text, _ = process.communicate(timeout=NEVER)
    assert process.returncode == 1
    assert f"rank 1 (process {child}) was killed by signal 9" in text
    if when == "starting":
        assert not folder.exists()
        return
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "failed" and "the last checkpoint can be resumed" in summary["message"]
    assert any("other ranks" in warning for warning in summary["warnings"]) and (folder / "final.vtu").exists()
    last = summary["outer_iterations"] + 2
    again = command(folder, {**LONG, "outer.iterations": last}, "--resume")
    resumed = subprocess.run(again, capture_output=True, text=True, env=ONE_THREAD, timeout=NEVER)
    assert f"{last} outer iterations" in resumed.stdout, resumed.stderr


@pytest.mark.slow
@linux
def test_the_ranks_end_with_the_first(tmp_path: Path) -> None:
    process = begin(tmp_path / "run")
    child = child_of(process)
    await_checkpoint(process, tmp_path / "run")
    process.kill()
    await_end(child)
    process.communicate(timeout=NEVER)
    read_sealed(tmp_path / "run" / "checkpoint.pt")


@pytest.mark.slow
@linux
def test_an_interrupt_ends_all_ranks_and_keeps_the_results(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = begin(folder)
    child = child_of(process)
    await_checkpoint(process, folder)
    for each in (child, process.pid):
        os.kill(each, signal.SIGINT)
    text, _ = process.communicate(timeout=NEVER)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["uncertainty"]["fresh_scenarios"] == 20, text
    assert "state_std" in fields(folder)
    await_end(child)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("robust_poisson.yaml", {"method": "adjoint"}, "method: expected nhgd in a run of 4 ranks, found 'adjoint'"),
        (
            "robust_poisson.yaml",
            {"scenarios.strategy": "saga"},
            "expected growing, all or streaming .*'saga'",
        ),
        (
            "robust_poisson.yaml",
            {"scenarios.strategy": "streaming", "scenarios.batch": 3},
            "batch: .* a rank, 4, found 3",
        ),
        ("poisson_control.yaml", {}, "parameters: expected random inputs in a run of 4 ranks"),
    ],
)
def test_problems_that_ranks_cannot_share_are_bad_input(name: str, settings: dict[str, Any], message: str) -> None:
    problem = nhgd.load(PROBLEM.parent / name, {"mesh.cells": [4, 4], **settings})
    with pytest.raises(nhgd.ProblemError, match=message):
        nhgd.solve(problem, place=ProcessPlace(0, 4, 0, 4, dist.HashStore))


@pytest.mark.slow
def test_bad_input_is_reported_once(tmp_path: Path) -> None:
    settings = {"scenarios.count": 0}
    done = subprocess.run(command(tmp_path / "run", settings), env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("scenarios.count: expected") == 1
    assert not (tmp_path / "run").exists()
