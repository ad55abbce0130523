"""Processes that compete with a benchmark for the processor."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager


def _spin() -> None:
    while True:
        pass


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """A number of processes that never wait, during a `with` block."""
    context = multiprocessing.get_context("spawn")
    beside = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in beside:
        process.start()
    try:
        yield
    finally:
        for process in beside:
            process.kill()
            process.join()
