"""Settings of all tests."""

from __future__ import annotations

import signal

# A run goes on ignoring the signals that its parent process ignores, as shells do for commands in the background and
# `nohup` does. Tests send signals to runs, so the result must not depend on how the tests were started.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
