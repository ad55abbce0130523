"""Two roles in two processes give the numbers of one process, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import NEVER, ONE_THREAD, await_checkpoint, await_end, child_of, linux

import nhgd_pde as nhgd
from nhgd_pde.output.sealed import read_sealed
from nhgd_pde.output.storage import OutputError

PROBLEMS = Path(__file__).parents[1] / "problems"
# Each role has one core, so that sums have the same order in both runs.

SAMPLED = {"inner.tests": 16, "curvature.kind": "dense"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "energy form, dense": ("poisson_control.yaml", {"mesh.cells": [10, 10], **SAMPLED}),
    "residual form, dense": (
        "poisson_control.yaml",
        {"mesh.cells": [6, 6], "inner.model": "residual", "inner.tests": 32, "outer.iterations": 4, **SAMPLED},
    ),
    "semilinear, factored": ("semilinear_control.yaml", {"mesh.cells": [12, 12]}),
    "semilinear, Newton-CG": (
        "semilinear_control.yaml",
        {"mesh.cells": [8, 8], "outer.method": "newton_cg", "curvature.lag": 1},
    ),
    "paper, residual form": (
        "poisson_nhgd_paper.yaml",
        {"mesh.cells": [6, 6], "inner.model": "residual", "outer.iterations": 4, "inner.steps": 10},
    ),
    "paper, refined": (
        "poisson_nhgd_paper.yaml",
        {"mesh.cells": [6, 6], "outer.iterations": 4, "inner.steps": 10, "hypergradient.refine": "auto"},
    ),
    "paper": ("poisson_nhgd_paper.yaml", {"mesh.cells": [8, 8], "outer.iterations": 6, "inner.steps": 40}),
}


def solve(case: str, folder: Path | None = None, roles: int = 1, **more: Any) -> nhgd.Solution:
    name, overrides = CASES[case]
    settings = {key.replace("__", "."): value for key, value in more.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        problem = nhgd.load(PROBLEMS / name, {**overrides, **settings})
        return nhgd.solve(problem, output=folder, roles=roles)
    finally:
        torch.set_num_threads(threads)


def inverse(folder: Path) -> torch.Tensor:
    """The inverse in the last checkpoint of a run with a dense inverse."""
    content = read_sealed(folder / "checkpoint.pt")["state"]["inverse"]
    if "file" in content:
        content = read_sealed(folder / content["file"], content["sha256"])
    return find(content, "inverse")


def find(content: Any, name: str) -> torch.Tensor:
    if isinstance(content, dict):
        if name in content:
            return content[name]
        for each in content.values():
            found = find(each, name)
            if found is not None:
                return found
    return None  # type: ignore[return-value]


@pytest.mark.parametrize("case", CASES)
def test_two_roles_give_the_numbers_of_one(case: str, tmp_path: Path) -> None:
    one, two = solve(case, tmp_path / "one"), solve(case, tmp_path / "two", roles=2)
    assert one.status == two.status and len(one.history) == len(two.history)
    assert two.objective == pytest.approx(one.objective, rel=1e-12)
    scale = np.abs(one.control).max()
    assert np.abs(one.control - two.control).max() <= 1e-12 * scale
    for ours, theirs in zip(one.history, two.history, strict=True):
        assert theirs["objective"] == pytest.approx(ours["objective"], rel=1e-12)
    if "dense" in case or "paper" in case:
        a, b = inverse(tmp_path / "one"), inverse(tmp_path / "two")
        assert (a - b).norm() <= 1e-12 * a.norm()
        assert "dense" in two.stats["curvature"] and one.stats["curvature"] == two.stats["curvature"]
    # The counts include the work of the other role, which computes the factors of K once more.
    assert two.stats["solves"]["solves"] == one.stats["solves"]["solves"]


@pytest.mark.parametrize("roles", [1, 2])
@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("case", ["energy form, dense", "semilinear, factored"])
def test_a_lagging_inverse_leads_to_the_same_optimum(case: str, lag: int, roles: int) -> None:
    # With alpha = 1e-6, a relative gradient of 1e-8 allows errors of 1e-6 in the control.
    exact, lagged = solve(case, outer__rtol=1e-10), solve(case, roles=roles, curvature__lag=lag, outer__rtol=1e-10)
    assert exact.status == lagged.status == "converged"
    assert lagged.objective == pytest.approx(exact.objective, rel=1e-6)
    assert np.abs(lagged.control - exact.control).max() <= 1e-6 * np.abs(exact.control).max()


def test_a_lagging_run_of_two_roles_gives_the_numbers_of_one() -> None:
    one, two = (solve("energy form, dense", roles=roles, curvature__lag=2) for roles in (1, 2))
    assert one.objective == pytest.approx(two.objective, rel=1e-12) and len(one.history) == len(two.history)


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("then", [1, 2])
def test_a_run_is_resumed_by_any_number_of_roles(first: int, then: int, tmp_path: Path) -> None:
    case = "energy form, dense"
    whole = solve(case)
    solve(case, tmp_path / "run", roles=first, outer__iterations=3)
    name, overrides = CASES[case]
    problem = nhgd.load(PROBLEMS / name, overrides)
    rest = nhgd.solve(problem, output=tmp_path / "run", roles=then, resume=True)
    assert rest.status == whole.status and len(rest.history) == len(whole.history)
    assert rest.objective == pytest.approx(whole.objective, rel=1e-12)
    np.testing.assert_allclose(rest.control, whole.control, rtol=0, atol=1e-11 * np.abs(whole.control).max())


# Faults

LONG = ("inner.tests=16", "curvature.kind=dense", "inner.tolerance=1e-9", "mesh.cells=[24,24]", "outer.rtol=1e-14")


def command(folder: Path, *settings: str) -> list[str]:
    options = [part for setting in (*LONG, *settings) for part in ("--set", setting)]
    file = str(PROBLEMS / "poisson_control.yaml")
    return [sys.executable, "-m", "nhgd_pde", "solve", file, *options, "--output", str(folder), "--roles", "2"]


@linux
@pytest.mark.parametrize("when", ["starting", "running"])
def test_the_inner_role_reports_the_death_of_the_curvature_role(when: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ONE_THREAD)
    child = child_of(run)
    if when == "running":
        await_checkpoint(run, folder)
    os.kill(child, signal.SIGKILL)
    text, _ = run.communicate(timeout=NEVER)
    assert run.returncode == 1
    assert f"the curvature role (process {child}) was killed by signal 9" in text
    if when == "starting":
        assert not folder.exists()
        return
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "failed" and str(child) in summary["message"]
    assert (folder / "final.vtu").exists()
    again = [*command(folder, "outer.iterations=2"), "--resume"]
    resumed = subprocess.run(again, capture_output=True, text=True, env=ONE_THREAD, timeout=NEVER)
    assert resumed.returncode == 1 and "2 outer iterations" in resumed.stdout


@linux
@pytest.mark.parametrize("when", ["starting", "running"])
def test_the_curvature_role_ends_with_the_other(when: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ONE_THREAD)
    child = child_of(run)
    if when == "running":
        await_checkpoint(run, folder)
    run.kill()
    await_end(child)
    run.communicate(timeout=NEVER)
    if when == "running":
        read_sealed(folder / "checkpoint.pt")


def test_a_missing_device_of_the_curvature_role_is_bad_input(tmp_path: Path) -> None:
    found = subprocess.run(
        command(tmp_path / "run", "devices.curvature=cuda:7"), capture_output=True, text=True, env=ONE_THREAD
    )
    assert found.returncode == 2 and not (tmp_path / "run").exists()
    assert "devices.curvature: expected a device of this machine, found 'cuda:7'" in found.stderr


@pytest.mark.parametrize("then", [1, 2])
def test_a_checkpoint_without_its_inverse_is_refused(then: int, tmp_path: Path) -> None:
    case = "energy form, dense"
    folder = tmp_path / "run"
    solve(case, folder, roles=2, outer__iterations=1)
    parts = list(folder.glob("checkpoint-curvature-*.pt"))
    assert len(parts) == 2, "one for each of the two checkpoints"
    for part in parts:
        part.unlink()
    before = sorted(folder.iterdir())
    name, overrides = CASES[case]
    with pytest.raises(OutputError, match=r"checkpoint\.pt: the inverse that belongs .* cannot be read .*no such file"):
        nhgd.solve(nhgd.load(PROBLEMS / name, overrides), output=folder, roles=then, resume=True)
    assert sorted(folder.iterdir()) == before


def test_one_role_has_one_device() -> None:
    problem = nhgd.load(PROBLEMS / "poisson_control.yaml", {"devices.curvature": "cuda:0", "mesh.cells": [4, 4]})
    with pytest.raises(nhgd.ProblemError, match=r"devices\.curvature: expected auto or 'cpu', .*--roles 2 uses both"):
        nhgd.solve(problem)


def test_torchrun_starts_both_roles(tmp_path: Path) -> None:
    arguments = command(tmp_path / "run", "outer.iterations=2")[1:-2]
    found = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments],
        capture_output=True,
        text=True,
        env=ONE_THREAD,
        timeout=NEVER,
    )
    assert "2 outer iterations ended" in found.stdout, found.stderr
    one = solve("energy form, dense", mesh__cells=[24, 24], inner__tolerance=1e-9, outer__iterations=2)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["objective"] == pytest.approx(one.objective, rel=1e-12)
