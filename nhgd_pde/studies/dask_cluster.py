"""Runs on the workers of a Dask cluster, which share the file system with this machine. Dask is imported here alone."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any
from uuid import uuid4

from ..problem_file.errors import Issue, ProblemError
from .one_run import Record, RunTask, performed_message

# Seconds to wait for the scheduler.
_PATIENCE = 20
# How often a run is repeated, from its checkpoint, if its worker dies.
_RETRIES = 1


class DaskWorkers:
    """Makes runs on a cluster.

    Args:
        scheduler: its address, HOST:PORT.

    Raises:
        ProblemError: Dask is not installed, there is no scheduler, or it has no workers with one thread each.
    """

    def __init__(self, scheduler: str) -> None:
        try:
            from distributed import Client
        except ImportError as missing:
            raise _refused(f"expected none, or Dask: pip install 'nhgd-pde[cluster]' ({missing})") from None
        try:
            self._client = Client(scheduler, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise _refused(
                f"expected the address of a Dask scheduler, HOST:PORT, found {scheduler!r}: {error}"
            ) from None
        threads = self._client.nthreads()
        if not threads or max(threads.values()) > 1:
            self._client.close()
            found = f"one with {max(threads.values())} threads" if threads else "none"
            raise _refused(f"expected workers with one thread each (dask worker --nthreads 1), found {found}")
        self.size = len(threads)
        self._stop = f"nhgd-pde-{uuid4()}"
        self._executor = self._client.get_executor(retries=_RETRIES, pure=False)

    def submit(self, task: RunTask) -> Future[Record]:
        return _caught(self._executor.submit(_performed, task.message(), self._stop))

    def stop(self) -> None:
        from distributed import Event

        Event(self._stop, client=self._client).set()

    def close(self) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()


def _performed(message: Mapping[str, Any], stop: str) -> Record:
    """The record of a run, on a worker."""
    from distributed import Event

    event = Event(stop)
    return performed_message(message, event.is_set)


def _caught(future: Future[Record]) -> Future[Record]:
    """A future whose exception, such as that of a worker which was killed, is the record of a run that has failed."""
    caught: Future[Record] = Future()

    def passed(done: Future[Record]) -> None:
        error = done.exception() if not done.cancelled() else None
        if done.cancelled() or error is not None:
            said = "its worker was lost" if error is None else f"{type(error).__name__}: {error}"
            caught.set_result({"status": "failed", "message": said.replace("\n", "; ")})
        else:
            caught.set_result(done.result())

    future.add_done_callback(passed)
    return caught


def _refused(message: str) -> ProblemError:
    return ProblemError([Issue("", message, "--scheduler")])
