"""One run a folder: a lock file that names the process which writes there.

The lock is the system's own (flock), which ends with its process, however that ends. The file says which process holds
it. Where a file system has no such locks, or the file was left by a process of another host, the text of the file
decides.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .storage import OutputError, StorageError, refusal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Name of the lock file in a folder.
LOCK = ".nhgd-pde.lock"


class FolderInUseError(OutputError):
    """Another run writes to the folder, or seems to."""


class FolderLock:
    """The exclusive right to write to a folder, from `take` until `close`."""

    def __init__(self, folder: Path, file: int) -> None:
        self._folder, self._file = folder, file
        self._home = _identity(os.stat(folder))

    @classmethod
    def take(cls, folder: Path) -> FolderLock:
        """The lock of a folder that exists.

        Raises:
            FolderInUseError: another run has it; the message names its process and, where the process is of another
                host, the file to delete if that run has ended.
            StorageError: the folder cannot be written to.
        """
        path = folder / LOCK
        try:
            while True:
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    _refuse_others(folder, file, _locked(file))
                    # Between opening and locking, the run before may have deleted the file.
                    if path.exists() and _identity(os.stat(path)) == _identity(os.fstat(file)):
                        _write(file, path)
                        return cls(folder, file)
                except BaseException:
                    os.close(file)
                    raise
                os.close(file)
        except FolderInUseError:
            raise
        except OSError as error:
            raise refusal(error, path) from error

    def check(self) -> None:
        """Make sure that the folder is still the one that was locked.

        Raises:
            StorageError: the folder has been deleted, moved or replaced, or another run has taken it over.
        """
        try:
            same = _identity(os.stat(self._folder)) == self._home
        except OSError as error:
            raise StorageError(f"{self._folder}: the run folder has been deleted or moved during the run") from error
        if not same:
            raise StorageError(f"{self._folder}: the run folder has been replaced by another one during the run")
        try:
            ours = _identity(os.stat(self._folder / LOCK)) == _identity(os.fstat(self._file))
        except OSError:
            return  # Somebody has deleted the lock alone: the folder is the one it was.
        if not ours:
            raise StorageError(f"{self._folder}: another run has taken over the folder during this run")

    def close(self) -> None:
        """Delete the lock file, where it is still ours; a second call does nothing."""
        if self._file < 0:
            return
        with suppress(OSError):
            path = self._folder / LOCK
            if _identity(os.stat(path)) == _identity(os.fstat(self._file)):
                path.unlink()
        os.close(self._file)
        self._file = -1


def _locked(file: int) -> bool | None:
    """Whether the system has given us the lock; None where it has no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _refuse_others(folder: Path, file: int, locked: bool | None) -> None:
    holder = _read(file)
    who = f"process {holder.get('process', 'unknown')} on {holder.get('host', 'this machine')}"
    since = f", since {holder['since']}" if "since" in holder else ""
    if locked is False or (locked is None and _alive(holder)):
        raise FolderInUseError(
            f"{folder}: another run writes to this folder ({who}{since}): wait for its end, or name another folder "
            "with --output"
        )
    if holder and holder.get("host") != socket.gethostname():
        raise FolderInUseError(
            f"{folder}: a run on another machine writes to this folder ({who}{since}); if that run has ended, delete "
            f"{folder / LOCK}"
        )


def _write(file: int, path: Path) -> None:
    """Writes who holds the lock; if there is no room even for this, no file is left behind."""
    here, since = os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S")
    text = json.dumps({"host": socket.gethostname(), "process": here, "started": _started(here), "since": since})
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)
    except OSError:
        path.unlink()
        raise


def _read(file: int) -> dict[str, Any]:
    """The content of the file; empty if its writer died before it had written."""
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the process that a lock names runs on this host, and is not a later one with the same number."""
    process = holder.get("process")
    if holder.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    return runs(process) and holder.get("started") == _started(process)


def runs(process: int) -> bool:
    """Whether there is a process of this number on this host."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # It is another user's.
    return True


def _started(process: int) -> str | None:
    """The start of a process in ticks since the start of the machine; None if the system does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino
