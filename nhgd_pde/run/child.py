"""Processes of this program that help another one: they leave signals to it, and end with it however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

from .signals import ignore_stops, stops_held_back

# With which a helper ends because the process that leads is gone, or another helper is.
LEADER_GONE = 3
# Says to a process that it helps the one at the other end of its standard input.
VARIABLE = "NHGD_PDE_HELPS"
# Seconds that a helper has to end by itself.
_LAST_WORDS = 5.0


def start_helper(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start `python -m` with the arguments as a helper of this process, connected to it by its standard input."""
    command = [sys.executable, "-m", *arguments]
    with stops_held_back():
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env={**environment, VARIABLE: "1"})


@contextmanager
def helper(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A helper that ends with the `with` block: by itself, or killed after some seconds, at once after an exception."""
    child = start_helper(arguments, environment)
    try:
        yield child
    except BaseException:
        end_helper(child, patience=0.0)
        raise
    end_helper(child)


def end_helper(child: subprocess.Popen[str], patience: float = _LAST_WORDS) -> None:
    """Wait for the end of a helper, which comes by itself when its standard input ends, and kill it after a while."""
    assert child.stdin is not None
    # What a child that died at once has not read cannot be written any more.
    with suppress(OSError):
        child.stdin.close()
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def ending(child: subprocess.Popen[str]) -> str:
    """How a process has ended, as a clause."""
    code = child.returncode
    if code is not None and code < 0:
        return f"(process {child.pid}) was killed by signal {-code}"
    return f"(process {child.pid}) ended with exit code {code}"


def be_helper() -> None:
    """Be a helper, if this process was started as one: the first thing that it does, before any large import."""
    if os.environ.pop(VARIABLE, None) is None:
        return
    ignore_stops()


def end_with_leader() -> None:
    """From now on this helper ends when its standard input does, whatever it is doing: with the process that leads."""
    Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    with suppress(OSError, ValueError):
        sys.stdin.read()
    # The main thread may be inside a factorisation that nobody wants any more.
    os._exit(LEADER_GONE)
