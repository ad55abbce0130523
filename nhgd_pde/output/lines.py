"""A text file that grows by whole lines."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path

from .storage import refusal, writing


def begins_as(path: Path, extent: Mapping[str, object]) -> bool:
    """Whether a file begins with the bytes that an earlier `LineFile.extent` describes.

    Raises:
        StorageError: the system does not let us read it.
    """
    with writing(path, "read"):
        data = path.read_bytes() if path.exists() else b""
    size = extent.get("bytes")
    if not isinstance(size, int) or not 0 <= size <= len(data):
        return False
    return hashlib.sha256(data[:size]).hexdigest() == extent.get("sha256")


class LineFile:
    """A text file to which whole lines are appended; they are on disk when `append` returns.

    After a failure the file ends with a whole line, as before. The new lines wait and are written together with the
    next ones, so that a disk that was full for a while leaves no gap.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._waiting = b""
        self._size, self._sum = 0, hashlib.sha256()

    def append(self, text: str) -> None:
        """Add text that ends with a line end; raises `StorageError` if the system does not take it, now or yet."""
        self._waiting += text.encode("utf-8")
        if not self._waiting:
            return
        try:
            if self._file is None:
                known = self.path.read_bytes() if self.path.exists() else b""
                self._file = FileIO(self.path, "a")
                self._counted(known)
            size = os.fstat(self._file.fileno()).st_size
            try:
                left = memoryview(self._waiting)
                while left:
                    # A disk with room for a part takes that part first.
                    left = left[self._file.write(left) :]
            except OSError:
                with suppress(OSError):
                    self._file.truncate(size)
                raise
        except OSError as error:
            raise refusal(error, self.path) from error
        self._counted(self._waiting)
        self._waiting = b""

    @property
    def extent(self) -> dict[str, int | str]:
        """Length and checksum of the text that has been written."""
        return {"bytes": self._size, "sha256": self._sum.hexdigest()}

    def _counted(self, data: bytes) -> None:
        self._size += len(data)
        self._sum.update(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
