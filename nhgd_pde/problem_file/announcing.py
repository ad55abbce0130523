"""Which Python files a problem runs, said before they are run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Told at the level INFO.
LOG = logging.getLogger("nhgd_pde.code")


class _Announcer(logging.Handler):
    """Passes every message on, once."""

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
    """Pass on which files are run, before they are, each once."""
    handler, before = _Announcer(say), LOG.level
    LOG.setLevel(logging.INFO)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)
