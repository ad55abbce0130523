"""Runs in processes of their own, which tests kill: what they wait for is an event, however busy the machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# One thread each, so that two runs do not wait for each other's threads.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
# Seconds after which what a test waits for is taken not to come at all. No test passes or fails by less.
NEVER = 600.0

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


def wait_for(what: Callable[[], bool], complaint: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + NEVER
    while not what():
        assert time.monotonic() < end, complaint
        time.sleep(0.01)


def child_of(process: subprocess.Popen[str]) -> int:
    """The number of the first process that a run starts."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: bool(children.read_text()), "no process was started")
    return int(children.read_text().split()[0])


def await_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait for the first checkpoint of a run that goes on."""

    def written() -> bool:
        assert process.poll() is None, "the run has ended"
        return (folder / "checkpoint.pt").exists()

    wait_for(written, "no checkpoint was written")


def await_end(process: int) -> None:
    """Wait for the end of a process that is not ours."""
    stat = Path(f"/proc/{process}/stat")

    def over() -> bool:
        try:
            return " Z " in stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(over, "a process has outlived the others")
