"""Runs of the command line in copies of this process, which start quickly, for scripts that disturb many runs."""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nhgd_pde.cli import main as main_of_the_command_line

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534
SMALL: dict[str, Any] = {"mesh.cells": [8, 8], "output.checkpoint": 1, "output.every": 1}


@contextmanager
def folder_of_everybody() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o777)
        yield path


def command(folder: Path, settings: dict[str, Any], *more: str, problem: str = "poisson_control") -> list[str]:
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    file = str(ROOT / "problems" / f"{problem}.yaml")
    return [sys.executable, "-m", "nhgd_pde", "solve", file, *pairs, "--output", str(folder), *more]


@dataclass(frozen=True)
class Guest:
    """The limits of a copy.

    Attributes:
        ordinary: the copy belongs to an ordinary user.
        limit: largest size of a file in bytes.
        output: the standard output of the copy.
    """

    ordinary: bool = True
    limit: int | None = None
    output: str | None = None


class Copy:
    """A copy of this process that runs a command line. It starts quickly, even if its user may not read the libraries.

    Attributes:
        pid: the process id of the copy.
        returncode: the exit code; None until the copy has ended.
    """

    def __init__(self, arguments: list[str], guest: Guest | None = None) -> None:
        self._said, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(write, 2)
            with open(guest.output, "w") if guest and guest.output else nullcontext() as output:
                os.dup2(write if output is None else output.fileno(), 1)
            # Tests have replaced the streams.
            sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
            os._exit(_in_copy(arguments, guest))
        os.close(write)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if process else None
        return self.returncode

    def communicate(self) -> tuple[str, None]:
        with open(self._said, errors="replace") as said:
            text = said.read()
        while self.poll() is None:
            time.sleep(0.002)
        return text, None


def _in_copy(arguments: list[str], guest: Guest | None) -> int:
    if guest is not None and guest.limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (guest.limit, guest.limit))
    if guest is not None and guest.ordinary and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        main_of_the_command_line(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
    return 99


def load_everything() -> None:
    """Loads modules that are loaded on first use, so that copies of this process need not load them."""
    with folder_of_everybody() as home, redirect_stdout(io.StringIO()), suppress(SystemExit):
        main_of_the_command_line(command(home / "run", SMALL, "-q")[3:])
