"""The process of the curvature role that `--roles 2` starts: `python -m nhgd_pde.run.curvature_process`.

It reads one line of JSON from standard input, and ends when that input does: with the process that started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from threading import Thread

from .environment import wait_without_work

_BAD_INPUT, _INNER_ROLE_GONE = 2, 3


def main() -> int:
    # Ctrl-C reaches every process of a terminal; when to stop is for the inner role to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work = json.loads(sys.stdin.readline() or "null")
    if work is None:
        return _INNER_ROLE_GONE
    wait_without_work()
    Thread(target=_end_with_the_inner_role, daemon=True).start()

    from dataclasses import replace

    from ..engine.roles.link import RoleLostError
    from ..problem.errors import ProblemError
    from ..problem.loading import read_problem
    from .meeting import Meeting, on_loopback
    from .roles import serve_curvature

    folder = Path(work["folder"]) if work["folder"] is not None else None
    file = read_problem(work["problem"])
    if work["path"] is not None:
        file = replace(file, path=Path(work["path"]))
    try:
        with on_loopback():
            serve_curvature(file, folder, Meeting(Path(work["meeting"]), 2).store(), work["threads"])
    except ProblemError:
        return _BAD_INPUT
    except RoleLostError:
        return _INNER_ROLE_GONE
    return 0


def _end_with_the_inner_role() -> None:
    sys.stdin.read()
    # The main thread may be inside a factorisation that nobody wants any more.
    os._exit(_INNER_ROLE_GONE)


if __name__ == "__main__":
    sys.exit(main())
