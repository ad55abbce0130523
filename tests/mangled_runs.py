"""Mangled files through the command line in this process, with a time limit and every warning as an error.

The time is that of the processor, which does not depend on other processes.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner
from mangling import mangled

import nhgd_pde.api  # noqa: F401  loaded before the clock runs
from nhgd_pde.cli import main

# Seconds and bytes.
LIMIT = 5.0
MOST = 2e9


class HangError(BaseException):
    """A command that takes longer than the limit."""


@dataclass(frozen=True)
class Outcome:
    """The result of a command for a mangled file.

    Attributes:
        number: number of the file.
        command: `check` or `solve`.
        code: the exit code.
        seconds: seconds of the processor.
        failure: a failure that must not happen, such as a traceback; empty where there is none.
        output: the printed text.
    """

    number: int
    command: str
    code: int
    seconds: float
    failure: str
    output: str


def outcomes(number: int, folder: Path, solve: bool, small: bool = True, limit: float = LIMIT) -> Iterator[Outcome]:
    """The outcomes of `check`, and with `solve` also of two iterations, for mangled file `number`.

    Args:
        number: number of the file.
        folder: a folder that `mangling.prepare` has filled.
        solve: files that pass `check` are also solved.
        small: see `mangled`; without it, problems that need more than 400 MB are refused.
        limit: time limit in seconds.
    """
    path = mangled(number, small).write(folder)
    limited = ["--set", "devices.memory=4e8"]
    checked = _run(number, ["check", str(path), *limited], limit)
    yield checked
    if solve and checked.code == 0 and not checked.failure:
        few = ["--set", "outer.iterations=2", "-q", "--output", str(folder / "out")]
        yield _run(number, ["solve", str(path), *limited, *few], limit)


def _run(number: int, command: Sequence[str], limit: float) -> Outcome:
    allowed = (0, 2) if command[0] == "check" else (0, 1, 2)
    start = time.process_time()
    failure, code, output = "", -1, ""
    try:
        with _in_time(limit, asks=command[0] == "solve"), warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
            done = CliRunner().invoke(main, list(command))
        code, output = done.exit_code, done.output
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            failure = "".join(traceback.format_exception(done.exception))
        elif code not in allowed or "Traceback" in output:
            failure = f"exit code {code}: {output}"
        elif code == 2 and not output.strip():
            failure = "exit code 2 without a word"
    except HangError:
        failure = f"more than {limit:g} s:\n" + traceback.format_exc()
    return Outcome(number, command[0], code, time.process_time() - start, failure, output)


@contextmanager
def _in_time(limit: float, asks: bool) -> Iterator[None]:
    """Ends a command that takes longer than the limit; with `asks` it first gets a signal to stop, as by Ctrl-C."""
    calls = 0

    def stop(number: int, frame: object) -> None:
        nonlocal calls
        calls += 1
        if not asks or calls > 2:
            raise HangError
        # A run ends at its next evaluation, and with a second signal at once.
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, limit, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
