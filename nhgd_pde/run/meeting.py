"""Where the processes that one process starts on its own machine meet: in a file, and on the loopback interface.

A store of torch.distributed that is reached by TCP listens on every interface of the machine, and anybody who can
connect may read and write its keys. The file lies in a folder that no other user can open, and what the processes say
to each other does not leave the machine. Processes on several hosts are started by a launcher, which has a store of its
own (docs/uncertainty.md, "Several processes", says what listens where).
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from ..output.lock import runs
from ..output.storage import writing

# For the processes that are started: the store's file.
VARIABLE = "NHGD_PDE_MEETING"
_TIMEOUT = timedelta(seconds=60)
_PREFIX = "nhgd-pde-meeting-"


@dataclass(frozen=True)
class Meeting:
    """Where so many processes meet.

    Attributes:
        path: of the store's file.
        size: number of processes.
    """

    path: Path
    size: int

    def ended(self) -> str | None:
        """Asked by a process that was started: None, or a sentence where the one that started it is gone."""
        starter = _starter(self.path.parent)
        return None if starter == os.getppid() else f"rank 0 (process {starter}) is gone"

    def store(self) -> dist.Store:
        store = dist.FileStore(str(self.path), self.size)
        store.set_timeout(_TIMEOUT)
        return store


@contextmanager
def private_meeting(size: int) -> Iterator[Meeting]:
    """A meeting in a folder of its own, which is there for the length of a `with` block."""
    _sweep()
    with ExitStack() as stack:
        with writing(os.environ.get("TMPDIR", "the temporary folder"), "used"):
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True)
            )
        yield Meeting(Path(folder) / "store", size)


def _sweep() -> None:
    """Remove the folders of this user's processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        starter = _starter(folder)
        # Those of other users cannot be removed, and need not be.
        if starter is not None and not runs(starter):
            shutil.rmtree(folder, ignore_errors=True)


def _starter(folder: Path) -> int | None:
    """The process that has made a folder, by its name."""
    number = folder.name.removeprefix(_PREFIX).partition("-")[0]
    return int(number) if number.isdigit() else None


@contextmanager
def on_loopback() -> Iterator[None]:
    """Connections that are made within a `with` block stay on this machine, unless the user has named an interface."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    added = [name for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if names and name not in os.environ]
    os.environ.update(dict.fromkeys(added, names[0] if names else ""))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
