"""Members in processes of their own; the results are those of one process, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import torch
from torch import Tensor

from .members import Candidate, Searcher

# The local search of a worker process, which its initialiser makes.
_search: list[Searcher] = []


@contextmanager
def processes(make: Callable[[], Searcher], count: int) -> Iterator[Searcher]:
    """A search that shares designs among processes, each with one thread and a problem of its own.

    Args:
        make: makes the local search in every process; a function of a module, or a partial of one.
        count: number of processes.
    """
    with ProcessPoolExecutor(count, get_context("spawn"), _prepare, (make,)) as pool:
        yield lambda designs: list(pool.map(_member, designs))


def _prepare(make: Callable[[], Searcher]) -> None:
    torch.set_num_threads(1)
    _search[:] = [make()]


def _member(v: Tensor) -> Candidate:
    return _search[0]([v])[0]
