"""The line that shows the stages of a long start: `mesh 0.6 s, assembly 2.0 s, factorisation ...`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

# Seconds that a start may take without a line.
_QUICK = 2.0


class StartLine:
    """Shows the stages of a start once it takes longer than two seconds.

    On a terminal one line is written again and again; elsewhere every stage that begins is a line.

    Args:
        stream: where the line goes, such as standard error.
        shown: false to show nothing at all.
        clock: seconds that rise.
    """

    def __init__(self, stream: TextIO, shown: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._shown, self._clock = stream, shown, clock
        self._terminal = stream.isatty()
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._begun = self._last = math.inf  # The time before the first stage does not count.
        self._eager = self._written = False

    def hear(self, name: str, ended: bool) -> None:
        """Note that a stage begins or has ended; what is between stages belongs to the one around them."""
        self._count()
        self._begun = min(self._begun, self._last)
        if not ended:
            self._open.append(name)
            self._seconds.setdefault(name, 0.0)
            self._show(f"{name} ...")
        elif name in self._open:
            self._open.remove(name)

    def expect_long(self) -> None:
        """Show the stages that follow at once."""
        self._eager = True

    def finish(self) -> None:
        """End the line; the stages that follow begin another one."""
        self._count()
        self._show("")
        if self._written and self._terminal:
            self._write("\n")
        self._seconds = dict.fromkeys(self._open, 0.0)
        self._begun, self._written = self._last if self._open else math.inf, False

    def close(self) -> None:
        """End the line for good."""
        self.finish()
        self._shown = False

    def _count(self) -> None:
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] += now - self._last
        self._last = now

    def _show(self, going_on: str) -> None:
        if not self._shown or not (self._eager or self._written or self._last - self._begun >= _QUICK):
            return
        done = [f"{name} {seconds:.1f} s" for name, seconds in self._seconds.items() if seconds >= 0.05]
        text = ", ".join([*done, going_on] if going_on else done)
        if not text:
            return
        self._write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        self._written = True

    def _write(self, text: str) -> None:
        # A line that cannot be written must not end a run.
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
