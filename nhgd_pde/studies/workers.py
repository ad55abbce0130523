"""Who makes the runs of a study: this process, or several processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any, Protocol

from ..run.child import ending, helper
from .one_run import Record, RunTask, performed
from .study_worker import STOP

# How often a run is begun or gone on with if the process that makes it dies.
_ATTEMPTS = 2
_MODULE = "nhgd_pde.studies.study_worker"


class Workers(Protocol):
    """Makes runs.

    Attributes:
        size: number of runs that can be made at the same time.
    """

    size: int

    def submit(self, task: RunTask) -> Future[Record]:
        """Begins a run."""
        ...

    def stop(self) -> None:
        """Ends the runs that are being made, as interrupted, with a checkpoint."""
        ...

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        ...


class ThisProcess:
    """Makes one run after the other in this process.

    Args:
        interrupted: asked before every evaluation; true ends the run.
    """

    size = 1

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self._interrupted = interrupted

    def submit(self, task: RunTask) -> Future[Record]:
        future: Future[Record] = Future()
        future.set_result(performed(task, self._interrupted))
        return future

    def stop(self) -> None:
        """There is nothing to do: runs ask by themselves."""

    def close(self) -> None:
        """There is nothing to end."""


class _LostError(Exception):
    """A process has died while it made a run; the text says how."""


class _Worker:
    """A process that makes runs, one after the other; a new one takes the place of one that has died."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment, self._stack, self._writing = environment, ExitStack(), Lock()
        self._process: subprocess.Popen[str] | None = None

    def make(self, task: RunTask, stopped: Event) -> Record:
        """The record of a run.

        Raises:
            _LostError: the process has died.
        """
        process = self.start()
        self._send(task.message())
        if stopped.is_set():
            self.stop()
        assert process.stdout is not None
        line = process.stdout.readline()
        if line.endswith("\n"):
            answer: Record = json.loads(line)
            return answer
        self.close()
        raise _LostError(f"the process that made it {ending(process)}")

    def start(self) -> subprocess.Popen[str]:
        """The process, which is started where there is none."""
        if self._process is None:
            self._process = self._stack.enter_context(helper([_MODULE], self._environment, stdout=subprocess.PIPE))
        return self._process

    def stop(self) -> None:
        """Asks the process to end its run."""
        self._send(STOP)

    def kill(self) -> None:
        """Ends the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()

    def _send(self, message: Any) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        # If it has died, whoever waits for its answer finds out.
        with self._writing, suppress(OSError, ValueError):
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        self._stack.close()
        if process is not None and process.stdout is not None:
            process.stdout.close()


class Processes:
    """Makes runs in several processes of this machine. A run whose process dies goes on in another one, once."""

    def __init__(self, count: int, note: Callable[[str], None]) -> None:
        self.size, self._note, self._stopped = count, note, Event()
        self._workers = [_Worker(_environment(count)) for _ in range(count)]
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for each in self._workers:
            self._free.put(each)
        self._threads = ThreadPoolExecutor(count)

    def start(self, count: int) -> None:
        """Starts some processes before there is work, as it takes them about two seconds to load what they need."""
        for each in self._workers[:count]:
            each.start()

    def submit(self, task: RunTask) -> Future[Record]:
        return self._threads.submit(self._made, task)

    def _made(self, task: RunTask) -> Record:
        for attempt in range(1, _ATTEMPTS + 1):
            worker = self._free.get()
            try:
                return {**worker.make(task, self._stopped), "attempts": attempt}
            except _LostError as error:
                lost = error
                if self._stopped.is_set():
                    return {"status": "interrupted", "message": str(lost)}
                if attempt < _ATTEMPTS:
                    self._note(f"{task.folder.name}: {lost}; the run goes on in another one")
            finally:
                self._free.put(worker)
        return {"status": "failed", "message": f"{lost}, and so did the one before", "attempts": _ATTEMPTS}

    def stop(self) -> None:
        self._stopped.set()
        for each in self._workers:
            each.stop()

    def close(self) -> None:
        """Ends all processes, whatever they are doing."""
        self._stopped.set()
        for each in self._workers:
            each.kill()
        self._threads.shutdown()
        for each in self._workers:
            each.close()


def _environment(count: int) -> dict[str, str]:
    """The variables of a process that shares the cores of this machine with others."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = int(given) if given.isdigit() and int(given) > 0 else known
    return {**os.environ, "OMP_NUM_THREADS": str(max(cores // count, 1))}
