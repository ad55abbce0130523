"""Runs of the command line in copies of this process, which are quick to begin: for scripts that disturb many runs."""

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
    """What a copy is not allowed.

    Attributes:
        ordinary: it is an ordinary user.
        limit: bytes that a file may have at most.
        output: where its standard output goes.
    """

    ordinary: bool = True
    limit: int | None = None
    output: str | None = None


class Copy:
    """A copy of this process that runs a command line: an ordinary user may not read the libraries, and it is quick.

    Attributes:
        pid: of the copy.
        returncode: None until it has ended.
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
            # Tests have put others in their place.
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
    """Load now what is loaded on first use, and would be by every copy of this process."""
    with folder_of_everybody() as home, redirect_stdout(io.StringIO()), suppress(SystemExit):
        main_of_the_command_line(command(home / "run", SMALL, "-q")[3:])
