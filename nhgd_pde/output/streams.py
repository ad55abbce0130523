"""Standard output and standard error that may be closed, full, or read by nobody."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from .storage import reason


def open_streams() -> None:
    """Opens standard streams that are closed, so that no file of a run gets their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (it stays open)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (it stays open)


def abandon(stream: TextIO, error: OSError, more: str = "") -> None:
    """Closes a stream that has failed, and says so on standard error if that can still be written to.

    Args:
        stream: the stream that has failed; text that it still holds is dropped.
        more: the consequence, as a clause.
    """
    with suppress(OSError, ValueError):
        # Python would try once more at its end, and complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    with suppress(OSError, ValueError):
        clause = f"; {more}" if more else ""
        sys.stderr.write(f"standard output: cannot be written: {reason(error)}{clause}\n")
        sys.stderr.flush()
