"""Helpers: processes that leave signals to the process that has started them, and end when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

from .signals import ignore_stops, stops_held_back

# The exit code of a helper that ends because the process that has started it is gone, or another helper is.
LEADER_GONE = 3
# The environment variable that makes a process a helper of the one at the other end of its standard input.
VARIABLE = "NHGD_PDE_HELPS"
# Seconds that a helper has to end by itself before it is killed.
_LAST_WORDS = 5.0


@contextmanager
def helper(
    arguments: Sequence[str], environment: Mapping[str, str], work: str = "", stdout: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`python -m` with the arguments, as a helper of this process that ends with the `with` block.

    Its standard input, from which it reads a line of work if there is one, connects it to this process.

    Args:
        stdout: subprocess.PIPE if this process reads what the helper answers; None: the helper has that of this one.
    """
    command = [sys.executable, "-m", *arguments]
    with stops_held_back():
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stdout, text=True, env={**environment, VARIABLE: "1"}
        )
    assert child.stdin is not None
    try:
        # If the helper has died already, the process that waits for it will find out.
        with suppress(BrokenPipeError):
            child.stdin.write(f"{work}\n" if work else "")
            child.stdin.flush()
        yield child
    finally:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    """Ends a helper by closing its standard input, or kills it after a while."""
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
    """Describes how a process has ended, as a clause."""
    code = child.returncode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return f"(process {child.pid}) {how}"


def be_helper() -> bool:
    """Makes this process a helper, if it was started as one; to be called first of all, before any large import."""
    if os.environ.pop(VARIABLE, None) is None:
        return False
    ignore_stops()
    return True


def end_with_leader() -> None:
    """Lets this helper end when its standard input is closed, whatever it is doing then."""

    def watch() -> None:
        with suppress(OSError, ValueError):
            sys.stdin.read()
        # The main thread may be inside a factorisation that nobody wants any more.
        os._exit(LEADER_GONE)

    Thread(target=watch, daemon=True).start()
