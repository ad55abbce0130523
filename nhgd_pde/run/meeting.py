"""The meeting of processes that one process starts on its machine: in a file, and on the loopback interface.

A store of torch.distributed that is reached by TCP listens on every interface, and whoever can connect may read and
write its keys. The file lies in a folder that no other user can open. A launcher of several hosts has its own store
(docs/uncertainty.md, "Several processes", describes which process listens where).
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

# The environment variable that tells started processes the path of the file of the store.
VARIABLE = "NHGD_PDE_MEETING"
# How long a process waits for the store.
_TIMEOUT = timedelta(seconds=60)
# How the names of the folders of meetings begin; the number of the process that has made one follows.
_PREFIX = "nhgd-pde-meeting-"


@dataclass(frozen=True)
class Meeting:
    """A meeting of `size` processes at the file of a store."""

    path: Path
    size: int

    def ended(self) -> str | None:
        """For a started process: a sentence if the process that has started it is gone, else None."""
        starter = _starter(self.path.parent)
        return None if starter == os.getppid() else f"rank 0 (process {starter}) is gone"

    def store(self) -> dist.Store:
        store = dist.FileStore(str(self.path), self.size)
        store.set_timeout(_TIMEOUT)
        return store


@contextmanager
def private_meeting(size: int) -> Iterator[Meeting]:
    """A meeting in a new folder, which is removed at the end of the `with` block."""
    _sweep()
    with ExitStack() as stack:
        with writing(os.environ.get("TMPDIR", "the temporary folder"), "used"):
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True)
            )
        yield Meeting(Path(folder) / "store", size)


def _sweep() -> None:
    """Removes the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        starter = _starter(folder)
        # Folders of other users cannot be removed, and need not be.
        if starter is not None and not runs(starter):
            shutil.rmtree(folder, ignore_errors=True)


def _starter(folder: Path) -> int | None:
    """The number of the process that has made a folder, from the name of the folder."""
    number = folder.name.removeprefix(_PREFIX).partition("-")[0]
    return int(number) if number.isdigit() else None


@contextmanager
def on_loopback() -> Iterator[None]:
    """Keeps connections that are made in the `with` block on this machine, unless the user has named an interface."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    added = [name for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if names and name not in os.environ]
    os.environ.update(dict.fromkeys(added, names[0] if names else ""))
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
