"""Settings of other libraries that these read once, when they are loaded: for the command line and its processes.

Nothing is set when the package is imported. A program of one's own chooses for itself: `OMP_WAIT_POLICY=passive` in its
environment, before it imports torch, has the same effect.
"""

from __future__ import annotations

import os


def wait_without_work() -> None:
    """Let threads that wait for each other sleep; to be called before torch is loaded.

    By default they ask again and again, which takes the processor from the thread that they wait for when other
    processes want it too.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
