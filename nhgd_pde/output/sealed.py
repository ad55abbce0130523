"""Files of tensors, numbers and text with a checksum, which is checked before anything is read from them.

The first line has the format, and the number and the SHA-256 of the bytes that follow. These bytes are nested mappings,
written by `torch.save`. They are loaded without running code from the file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from .atomic import atomic_path
from .storage import OutputError, writing

# Number of the format that is written and read.
FORMAT = 4
_HEADER = re.compile(
    rb"nhgd-pde checkpoint, format (?P<format>[0-9]{4}), (?P<size>[0-9]{20}) bytes, (?P<sum>[0-9a-f]{64})\n"
)


def _header(size: int, checksum: str) -> bytes:
    return f"nhgd-pde checkpoint, format {FORMAT:04d}, {size:020d} bytes, {checksum}\n".encode("ascii")


_LENGTH = len(_header(0, "0" * 64))
# The first bytes of files of `torch.save`, and of the checkpoints of formats 1 to 3.
_ARCHIVE = b"PK\x03\x04"


class DamagedError(OutputError):
    """A sealed file is damaged, or was written by another version of the package."""


class _Hashed:
    """The file that `torch.save` writes to. A failure is kept until the end, because `torch.save` expects none."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sum, self.size = file, hashlib.sha256(), 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.failure is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.failure = error
            self.sum.update(data)
            self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass


def write_sealed(path: Path, content: Mapping[str, Any], before: Callable[[], None] = lambda: None) -> str:
    """Write nested mappings of tensors, numbers and text, whole or not at all; returns the checksum.

    Args:
        before: called when all is written, before the file takes the place of an older one.

    Raises:
        StorageError: the system does not take the file.
    """
    import torch

    with atomic_path(path) as temporary:
        with open(temporary, "xb") as file:
            file.write(b" " * _LENGTH)
            hashed = _Hashed(file)
            torch.save(dict(content), cast(BinaryIO, hashed))
            if hashed.failure is not None:
                raise hashed.failure
            file.seek(0)
            file.write(_header(hashed.size, hashed.sum.hexdigest()))
        before()
    return hashed.sum.hexdigest()


def read_sealed(path: Path, expected: str | None = None) -> dict[str, Any]:
    """The content of a sealed file.

    Args:
        expected: the checksum that it must have.

    Raises:
        DamagedError: its checksum is not that of its content, or not the expected one, or it has another format.
        StorageError: the system does not let us read it.
    """
    import torch

    with writing(path, "read"), open(path, "rb") as file:
        found = _checked(path, file)
        if expected is not None and found != expected:
            raise DamagedError(f"{path}: expected the file of checksum {expected[:12]}, found {found[:12]}")
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load has a dozen ways to object
            raise DamagedError(f"{path}: not a checkpoint that can be read ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path}: not a checkpoint that can be read (found {type(content).__name__})")
    return content


def _checked(path: Path, file: BufferedReader) -> str:
    """The checksum of an open file, which is left at its content."""
    first = file.read(_LENGTH)
    header = _HEADER.fullmatch(first)
    if header is None and first.startswith(_ARCHIVE):
        raise DamagedError(
            f"{path}: expected a checkpoint of format {FORMAT}, found one without a checksum, as earlier versions of "
            "the package wrote them"
        )
    if header is None:
        raise DamagedError(f"{path}: not a checkpoint that can be read (its first line is damaged)")
    if int(header["format"]) != FORMAT:
        raise DamagedError(f"{path}: expected a checkpoint of format {FORMAT}, found format {int(header['format'])}")
    size = os.fstat(file.fileno()).st_size - _LENGTH
    if size != int(header["size"]):
        raise DamagedError(
            f"{path}: not a checkpoint that can be read (expected {int(header['size']):,} bytes, found {size:,})"
        )
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != header["sum"].decode():
        raise DamagedError(f"{path}: not a checkpoint that can be read (its checksum is not that of its content)")
    file.seek(_LENGTH)
    return found


def first_line(error: BaseException) -> str:
    """The first line of what an error says; the name of its class where it says nothing."""
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
