"""Whole files or none: a hidden temporary in the folder of the target is renamed onto it when it is complete.

This guards against the end of the process, not against a power cut: nothing is forced out of the system's cache.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .storage import OutputError, StorageError, refusal, target_of_temporary

__all__ = ["OutputError", "atomic_path", "target_of_temporary", "write_atomically"]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends without an exception.

    The block must create and close the file. After an exception the temporary is gone and an older `path` is
    as it was. Raises `StorageError`, with the system's reason, when the file cannot be written, and
    `FileNotFoundError` when the block wrote nothing.
    """
    target = Path(path)
    # Not tempfile: its files are private to their owner, and the rename would carry that over to the result.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        nothing = isinstance(error, FileNotFoundError) and target.parent.is_dir()
        if isinstance(error, OSError) and not isinstance(error, StorageError) and not nothing:
            raise refusal(error, target) from error
        raise


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write `content` (text as UTF-8 with its line ends kept, or bytes) to `path`, whole or not at all."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_path(path) as temporary, open(temporary, "xb") as file:
        file.write(data)
