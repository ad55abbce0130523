"""Whole files or none: a reader, or a killed run, never meets a half-written file.

Every writer works on a hidden temporary in the target's own folder (a rename is atomic only inside one file
system) and renames it onto the target when it is complete. This guards against the end of the process, not
against a power cut: nothing is forced out of the operating system's cache.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{12}\.tmp")


class OutputError(ValueError):
    """Output that cannot be written or read as asked; the message names the place and what was found."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends without an exception.

    The block must create and close the file. After an exception the temporary is gone and an older `path` is
    as it was. Raises `FileNotFoundError` when the folder of `path` is missing or the block wrote nothing.
    """
    target = Path(path)
    # Not tempfile: its files are private to their owner, and the rename would carry that over to the result.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write `content` (text as UTF-8 with its line ends kept, or bytes) to `path`, whole or not at all."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_path(path) as temporary, open(temporary, "xb") as file:
        file.write(data)


def target_of_temporary(name: str) -> str | None:
    """The file name that a temporary left by a killed run was meant for; None for any other file name."""
    match = _TEMPORARY.fullmatch(name)
    return match["target"] if match else None
