"""Errors of the system about files that cannot be written or read, as plain sentences."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The names of temporaries, see `atomic`.
_TEMPORARY = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{12}\.tmp")

# Plain words for error numbers of the system.
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user is used up",
    errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
    errno.EPERM: "the system does not permit it",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOENT: "the file or the folder is not there, or not any more",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "a folder stands in its place",
    errno.EEXIST: "something else stands in its place",
    errno.ELOOP: "the links of the path lead round in a circle",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the device or the terminal does not answer",
    errno.ESTALE: "the file server does not know it any more",
    errno.EMFILE: "this process has too many open files (ulimit -n)",
    errno.ENFILE: "the machine has too many open files",
    errno.EPIPE: "nobody reads it any more",
}


class OutputError(ValueError):
    """Output that cannot be written or read as asked; the message names the place and what was found."""


class StorageError(OutputError, OSError):
    """The system refuses to write or read a file; the message names the file and the reason."""

    def __str__(self) -> str:
        # The text of an OSError is made from its number where there is one.
        return str(self.args[0]) if self.args else ""


def reason(error: OSError, path: Path | None = None) -> str:
    """The reason of the system in plain words, with its own words in brackets."""
    said = f" ({error.strerror})" if error.strerror else ""
    if error.errno == errno.EACCES:
        return f"this user has no permission{_owner(path)}{said}"
    plain = _REASONS.get(error.errno or 0)
    return f"{plain}{said}" if plain else error.strerror or str(error) or type(error).__name__


def refusal(error: OSError, path: str | os.PathLike[str], done: str = "written") -> StorageError:
    """The exception for a file or folder that the system does not let us write or read.

    Args:
        done: `written`, `read`, `made`, `removed`.
    """
    if done == "read" and error.errno == errno.ENOENT:
        return StorageError(f"{path}: no such file")
    return StorageError(f"{path}: cannot be {done}: {reason(error, Path(path))}")


@contextmanager
def writing(path: str | os.PathLike[str], done: str = "written") -> Iterator[None]:
    """Turns an error of the system in the `with` block into a `StorageError` that names the file."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        place = error.filename if isinstance(error.filename, str) else path
        target = target_of_temporary(Path(place).name)
        raise refusal(error, Path(place).with_name(target) if target else place, done) from error


def target_of_temporary(name: str) -> str | None:
    """The file name that a temporary left by a killed run was meant for; None for any other file name."""
    match = _TEMPORARY.fullmatch(name)
    return match["target"] if match else None


def _owner(path: Path | None) -> str:
    """The owner of the file, or of the nearest folder above it that can be seen, as a clause; empty for this user."""
    for place in () if path is None else (path, *path.parents):
        try:
            owner = place.stat().st_uid
        except OSError:
            continue
        return f", {place} belongs to {_name(owner)}" if owner != os.geteuid() else ""
    return ""


def _name(user: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(user).pw_name
    except (ImportError, KeyError):
        return f"user {user}"
