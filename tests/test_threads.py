"""The number of threads of a run, and threads that wait without using the processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from nhgd_pde.choice.method import build_method
from nhgd_pde.linalg.threads import at_most_threads
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.run.environment import wait_without_work

PROBLEMS = Path(__file__).parents[1] / "problems"


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_torch_and_the_blas_are_limited_together_and_only_within_the_block() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        outside = blas_threads()
        with at_most_threads(1):
            assert torch.get_num_threads() == 1 and set(blas_threads()) == {1}
        assert torch.get_num_threads() == 2 and blas_threads() == outside
        with at_most_threads(None):
            assert torch.get_num_threads() == 2 and blas_threads() == outside
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("kind", "unknowns", "threads"),
    [("auto", 100, 1), ("auto", 1_000_000, 1), ("dense", 1_000, 1), ("dense", 2_500, None)],
)
def test_only_a_large_dense_inverse_uses_several_threads(kind: str, unknowns: int, threads: int | None) -> None:
    file = read_problem(PROBLEMS / "poisson_control.yaml", {"curvature.kind": kind})
    assert build_method(file, (1, unknowns), torch.device("cpu")).threads == threads


def test_the_command_line_lets_threads_sleep_before_torch_is_loaded() -> None:
    program = (
        "import os, sys; import nhgd_pde.cli; assert 'torch' not in sys.modules; "
        "nhgd_pde.cli.main(['list'], standalone_mode=False); print(os.environ['OMP_WAIT_POLICY'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "passive", done.stderr


def test_a_policy_that_the_user_has_chosen_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_without_work()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
