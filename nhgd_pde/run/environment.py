"""Settings of other libraries, which read them once when they are loaded.

Only the command line and its processes make these settings; to import the package sets nothing. Another program gets
the same effect with `OMP_WAIT_POLICY=passive` in its environment, before it imports torch.
"""

from __future__ import annotations

import os


def wait_without_work() -> None:
    """Lets threads that wait for each other sleep, as busy ones take the processor from the thread that they wait for.

    It has to be called before torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
