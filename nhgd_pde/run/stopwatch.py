"""The seconds and the work that a run has taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..linalg.counts import Counts


class Stopwatch:
    """Measures the seconds and the work of a run, and stands still while records are made.

    Args:
        earlier: seconds that belong to the run and have passed before it.
    """

    def __init__(self, counts: Counts, earlier: float) -> None:
        self._counts, self._before = counts, replace(counts)
        self._start = time.perf_counter() - earlier

    @property
    def seconds(self) -> float:
        """Seconds of the run, and of the runs that it continues."""
        return time.perf_counter() - self._start

    @property
    def counts(self) -> Counts:
        """Work of the run, and of the runs that it continues."""
        return self._counts - self._before

    def add(self, seconds: float, counts: Counts) -> None:
        """Adds what a run had taken until the checkpoint that this run continues from."""
        self._start -= seconds
        self._before = self._before - counts

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Leaves the seconds of a `with` block out."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - began
