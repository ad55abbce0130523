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


@contextmanager
def helper(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`python -m` with the arguments as a helper of this process, which ends with the `with` block.

    It is connected to this process by its standard input.
    """
    command = [sys.executable, "-m", *arguments]
    with stops_held_back():
        child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env={**environment, VARIABLE: "1"})
    try:
        yield child
    finally:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    """Wait for the end of a helper, which comes by itself when its standard input ends, and kill it after a while."""
    assert child.stdin is not None
    # What a child that died at once has not read cannot be written any more.
    with suppress(OSError):
        child.stdin.close()
    try:
        child.wait(_LAST_WORDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def ending(child: subprocess.Popen[str]) -> str:
    """How a process has ended, as a clause."""
    code = child.returncode
    if code is not None and code < 0:
        return f"(process {child.pid}) was killed by signal {-code}"
    return f"(process {child.pid}) ended with exit code {code}"


def be_helper() -> bool:
    """Be a helper, if this process was started as one: the first thing that it does, before any large import."""
    if os.environ.pop(VARIABLE, None) is None:
        return False
    ignore_stops()
    return True


def end_with_leader() -> None:
    """From now on this helper ends when its standard input does, whatever it is doing: with the process that leads."""
    Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    with suppress(OSError, ValueError):
        sys.stdin.read()
    # The main thread may be inside a factorisation that nobody wants any more.
    os._exit(LEADER_GONE)
