"""The process of the curvature role that `--roles 2` starts: `python -m nhgd_pde.run.curvature_process`.

It reads one line of JSON from standard input, and ends when that input is closed: with the process that started it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .child import LEADER_GONE, be_helper, end_with_leader
from .environment import wait_without_work

# Exit code for a problem that cannot be built here; the inner role has been told.
_BAD_INPUT = 2


def main() -> int:
    be_helper()
    work = json.loads(sys.stdin.readline() or "null")
    if work is None:
        return LEADER_GONE
    wait_without_work()
    end_with_leader()

    from ..engine.roles.failures import RoleLostError
    from ..problem_file.errors import ProblemError
    from ..problem_file.loading import read_problem
    from .curvature_role import serve_curvature

    folder = Path(work["folder"]) if work["folder"] is not None else None
    file = read_problem(work["problem"], place=None if work["path"] is None else Path(work["path"]))
    try:
        serve_curvature(file, folder)
    except ProblemError:
        return _BAD_INPUT
    except RoleLostError:
        return LEADER_GONE
    return 0


if __name__ == "__main__":
    sys.exit(main())
