"""A limit of the threads of torch and of the BLAS of NumPy and SciPy within a block of code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def at_most_threads(count: int | None) -> Iterator[None]:
    """Limit the threads of torch and of the BLAS within a `with` block; None leaves them alone.

    Sparse work gains next to nothing from a second thread (docs/benchmarks.md, "Threads"). Where another process wants
    the same cores, however, every operation waits for the thread that comes last.
    """
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, count))
    try:
        with threadpool_limits(min(before, count), "blas"):
            yield
    finally:
        torch.set_num_threads(before)
