"""A limit of the threads of torch and of the BLAS of NumPy and SciPy within a block of code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController


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
        with _controller(len(sys.modules)).limit(limits=min(before, count), user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _controller(modules: int) -> ThreadpoolController:
    """The libraries with threads, found by a search through all that are loaded, which takes milliseconds.

    It is repeated where the number of modules of Python shows that more may have been loaded.
    """
    return ThreadpoolController()
