"""Runs in other processes, which tests kill. Tests wait for events and not for a time, as the machine may be busy."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# Every run has one thread, so that two runs do not wait for the threads of each other.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
# Number of seconds after which a test gives up waiting for an event and fails.
NEVER = 600.0

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


def wait_for(what: Callable[[], bool], complaint: str) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + NEVER
    while not what():
        assert time.monotonic() < end, complaint
        time.sleep(0.01)


def child_of(process: subprocess.Popen[str]) -> int:
    """The id of the first process that a run starts."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: bool(children.read_text()), "no process was started")
    return int(children.read_text().split()[0])


def await_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    """Waits for the first checkpoint of a run."""

    def written() -> bool:
        assert process.poll() is None, "the run has ended"
        return (folder / "checkpoint.pt").exists()

    wait_for(written, "no checkpoint was written")


def await_end(process: int) -> None:
    """Waits for the end of a process that is not a child of this one."""
    stat = Path(f"/proc/{process}/stat")

    def over() -> bool:
        try:
            return " Z " in stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(over, "a process has outlived the others")
