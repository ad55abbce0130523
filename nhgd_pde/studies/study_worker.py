"""A process that makes runs of a study: `python -m nhgd_pde.studies.study_worker`.

It reads tasks from standard input, a line of JSON each, and answers each with a line: the record of the run. The word
`stop` ends the run that is being made, and those that follow, as interrupted. The process ends when its input is
closed: with the process that has started it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

STOP = "stop"


def main() -> None:
    from ..run.child import LEADER_GONE, be_helper
    from ..run.environment import wait_without_work

    be_helper()
    # What user code prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    wait_without_work()
    tasks: SimpleQueue[Any] = SimpleQueue()
    stopped = Event()

    def read() -> None:
        with suppress(OSError, ValueError):
            for line in sys.stdin:
                message = json.loads(line)
                if message == STOP:
                    stopped.set()
                else:
                    tasks.put(message)
        # The main thread may be inside a factorisation that nobody wants any more.
        os._exit(LEADER_GONE)

    Thread(target=read, daemon=True).start()

    # All that a run needs is loaded while the process that has started this one still checks the problems.
    from .. import api  # noqa: F401
    from ..problem_file.announcing import announced
    from .one_run import performed_message

    with announced(_say):
        while True:
            record = performed_message(tasks.get(), stopped.is_set)
            answers.write(json.dumps(record) + "\n")
            answers.flush()


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
