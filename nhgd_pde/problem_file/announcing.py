"""Announces the Python files whose code a problem runs, before the code is run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The messages have the level INFO.
LOG = logging.getLogger("nhgd_pde.code")


class _Announcer(logging.Handler):
    """Passes every message on, each only once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.said:
            self.said.add(text)
            self.say(text)


@contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Pass a message about every file whose code is run to `say`, before it is run, each only once."""
    handler, before = _Announcer(say), LOG.level
    LOG.setLevel(logging.INFO)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)
