"""Signals that ask a run to stop: Ctrl-C, SIGTERM and SIGHUP (the terminal is gone)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Windows has no SIGHUP.
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """A function that is true after a signal to stop. The same signal again raises KeyboardInterrupt at once.

    Signals that this process was started to ignore (nohup) stay ignored. In a thread, which cannot have signals, the
    function is always false.
    """
    asked: list[int] = []

    def handle(number: int, frame: object) -> None:
        again = number in asked
        asked.append(number)
        if again:
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        wanted = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stops() -> None:
    """Ignores signals to stop, which reach every process of a terminal or launcher: the first process handles them."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


@contextmanager
def stops_held_back() -> Iterator[None]:
    """Processes that are started in the `with` block begin with these signals blocked, until they unblock them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
