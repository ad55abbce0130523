"""What holds for all tests."""

from __future__ import annotations

import signal

# A run leaves signals ignored that its process was started to ignore, as shells do with commands in the background, and
# `nohup` does. Tests that send signals start such runs, and must not depend on how they were started themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
