"""A text file that grows by whole lines."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from nhgd_pde.output.storage import refusal


class LineFile:
    """Appends whole lines, on disk when `append` returns.

    After a failure the file ends with a whole line, as before, and the new lines wait: they are written with the next
    ones, so that a disk that was full for a while leaves no gap.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._waiting = b""

    def append(self, text: str) -> None:
        """Add text that ends with a line end.

        Raises:
            StorageError: the system does not take it, now or yet.
        """
        self._waiting += text.encode("utf-8")
        if not self._waiting:
            return
        try:
            if self._file is None:
                self._file = FileIO(self.path, "a")
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
        self._waiting = b""

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()
