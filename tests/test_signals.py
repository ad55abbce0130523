"""Signals to stop: a run ends as interrupted with a summary, for any signal and any other receivers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import NEVER, ONE_THREAD, await_checkpoint, await_end, child_of, linux, wait_for

import nhgd_pde as nhgd
from nhgd_pde.run.child import helper
from nhgd_pde.run.signals import STOPS, stop_requested

ROOT = Path(__file__).parents[1]
# A run with small steps, which goes on until it is stopped.
LONG = {
    "mesh.cells": [12, 12],
    "outer.method": "gradient",
    "outer.step": 1e-3,
    "outer.iterations": 10**6,
    "output.every": 0,
    "output.checkpoint": 1,
}
HELPER = """
import sys
from nhgd_pde.run.child import be_helper, end_with_leader
be_helper()
end_with_leader()
print("ready", flush=True)
import time
time.sleep(1000)
"""


def begin(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Starts a run in a new process group."""
    settings = [part for key, value in LONG.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    arguments = ["solve", str(ROOT / "problems/poisson_control.yaml"), *settings, "--no-figure"]
    arguments += ["--output", str(folder), *options]
    return subprocess.Popen(
        [sys.executable, "-m", "nhgd_pde", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**ONE_THREAD, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_sets_the_flag_to_stop(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requested() as asked:
        assert not asked()
        signal.raise_signal(number)
        assert asked()
        # Launchers and terminals send several kinds of signals at once; the same kind twice ends the process at once.
        for other in STOPS:
            if other != number:
                signal.raise_signal(other)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is ignored from the start, as with `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requested() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_sets_no_signal_handlers() -> None:
    found = []

    def work() -> None:
        with stop_requested() as asked:
            found.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_run_that_is_asked_to_stop_has_a_summary(tmp_path: Path) -> None:
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", LONG)
    with stop_requested() as asked:
        solution = nhgd.solve(problem, lambda row: signal.raise_signal(signal.SIGHUP), tmp_path / "run", asked)
    assert solution.status == json.loads((tmp_path / "run/summary.json").read_text())["status"] == "interrupted"


@linux
def test_a_child_process_ignores_signals_and_ends_with_its_leader(tmp_path: Path) -> None:
    module = tmp_path / "helping.py"
    module.write_text(HELPER)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with helper(["helping"], environment) as child:
        # This holds from its first moment, before it sets signal handlers.
        for number in STOPS:
            child.send_signal(number)
        status = Path(f"/proc/{child.pid}/status")
        mask = f"{sum(1 << (number - 1) for number in STOPS):016x}"
        wait_for(lambda: f"SigIgn:\t{mask}" in ignored(status.read_text(), mask), "the signals are not ignored")
        assert child.poll() is None
        process = child.pid
    await_end(process)
    assert child.returncode == 3


def ignored(status: str, mask: str) -> str:
    """The line of ignored signals in the status of the process, restricted to a mask."""
    value = next(line for line in status.splitlines() if line.startswith("SigIgn:")).split()[1]
    return f"SigIgn:\t{int(value, 16) & int(mask, 16):016x}"


@pytest.mark.slow
@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("roles", [1, 2])
def test_a_signal_to_the_process_group_interrupts_the_run(number: signal.Signals, roles: int, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", "--roles", str(roles))
    await_checkpoint(run, tmp_path / "run")
    child = child_of(run) if roles == 2 else None
    os.killpg(run.pid, number)
    text, _ = run.communicate(timeout=NEVER)
    assert run.returncode == 1 and "interrupted" in text and "Traceback" not in text, text
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "interrupted" and (tmp_path / "run/final.vtu").exists()
    if child is not None:
        await_end(child)


@pytest.mark.slow
@linux
def test_a_run_whose_terminal_closes_writes_a_summary(tmp_path: Path) -> None:
    """SIGHUP, and a standard output that nobody reads."""
    run = begin(tmp_path / "run")
    await_checkpoint(run, tmp_path / "run")
    assert run.stdout is not None
    run.stdout.close()
    run.send_signal(signal.SIGHUP)
    assert run.wait(timeout=NEVER) == 1
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "interrupted"
