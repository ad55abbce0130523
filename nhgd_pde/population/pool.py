"""Members in processes of their own; the results are those of one process, bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from multiprocessing.synchronize import Event
from threading import Thread

import torch
from torch import Tensor

from ..engine.roles.failures import RoleError
from ..linalg.counts import Counts
from .members import Candidate, LocalSearch, Searcher, SearchInterruptedError

# The local search of a worker process, which its initialiser makes.
_search: list[LocalSearch] = []
# Seconds between two looks at whether the search is to stop.
_PAUSE = 0.05


class MemberLostError(RoleError):
    """A process of a population could not start, or died."""


@contextmanager
def processes(
    make: Callable[[], LocalSearch],
    count: int,
    interrupted: Callable[[], bool] = lambda: False,
    counts: Counts | None = None,
    starting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[Searcher]:
    """A search that shares designs among processes, each with one thread and a problem of its own.

    The processes end with the `with` block, and where this process is killed.

    Args:
        make: makes the local search in every process; a function of a module, or a partial of one.
        count: number of processes.
        interrupted: asked while the processes search; true ends their searches before the next evaluation.
        counts: where the work of the processes is added.
        starting: makes a context in which processes are started.

    Raises:
        MemberLostError: in a search, where a process died or could not start.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(count, context, _prepare, (make, stop)) as pool:

        def shared(designs: list[Tensor], steps: int) -> list[bytes]:
            with starting():
                # Tensors are sent as bytes: torch would put each of them into shared memory.
                futures = [pool.submit(_member, pickle.dumps((v, steps))) for v in designs]
            left = set(futures)
            while left:
                left = wait(left, _PAUSE).not_done
                if interrupted():
                    stop.set()
            return [each.result() for each in futures]

        def search(designs: list[Tensor], steps: int) -> list[Candidate]:
            try:
                found = [pickle.loads(each) for each in shared(designs, steps)]
            except BrokenProcessPool as lost:
                hint = "a script that solves with several processes does so below `if __name__ == '__main__':`"
                raise MemberLostError(f"a process of the population died, or could not start ({hint})") from lost
            if stop.is_set():
                raise SearchInterruptedError
            for _, work in found:
                if counts is not None:
                    counts.add(work)
            return [candidate for candidate, _ in found]

        try:
            yield search
        finally:
            stop.set()


def _prepare(make: Callable[[], LocalSearch], stop: Event) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _search[:] = [replace(make(), interrupted=stop.is_set)]


def _end_with_parent() -> None:
    """Ends this process when the one that has started it is gone, whatever it is doing then."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _member(task: bytes) -> bytes:
    """The member that is found, and the work that it took; None in place of both where the search was stopped."""
    v, steps = pickle.loads(task)
    search = _search[0]
    before = replace(search.counts)
    try:
        return pickle.dumps((search.member(v, steps), search.counts - before))
    except SearchInterruptedError:
        return pickle.dumps(None)
