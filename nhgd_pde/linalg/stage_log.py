"""Announces the stages of a start, such as the mesh and the factorisation, before and after each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The messages have the level INFO; their attribute `ended` is true after a stage.
LOG = logging.getLogger("nhgd_pde.stages")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Announces a `with` block as a stage of a name; stages may contain others."""
    LOG.info(name, extra={"ended": False})
    try:
        yield
    finally:
        LOG.info(name, extra={"ended": True})


class _Listener(logging.Handler):
    def __init__(self, hear: Callable[[str, bool], None]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record.getMessage(), getattr(record, "ended", False))


@contextmanager
def stages_heard(hear: Callable[[str, bool], None]) -> Iterator[None]:
    """Call `hear` with the name of each stage, and with whether it has ended."""
    handler, before = _Listener(hear), LOG.level
    LOG.setLevel(logging.INFO)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)
