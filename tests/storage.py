"""Places where files cannot be written: without permission, beyond a size limit, on a full file system."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

NOBODY = 65534


def can_mount() -> bool:
    """Whether this user may mount a file system."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


mounts = pytest.mark.skipif(not can_mount(), reason="needs to mount a small file system")


@contextmanager
def small_disk(size: str = "1m", options: str = "") -> Iterator[Path]:
    """A file system in memory with a number of bytes or other mount options."""
    with tempfile.TemporaryDirectory() as folder:
        more = f"size={size},mode=777{options}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", more, "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A folder that belongs to an ordinary user, who is the user of this process inside the `with` block."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        if os.geteuid() != 0:
            yield path
            return
        path.chmod(0o777)
        groups, group = os.getgroups(), os.getegid()
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            yield path
        finally:
            os.seteuid(0)
            os.setegid(group)
            os.setgroups(groups)


@contextmanager
def limited_files(most: int) -> Iterator[None]:
    """Limits the size of files, as `ulimit -f` does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(folder: Path) -> Path:
    """Writes a file that takes all free bytes, and returns it."""
    path = folder / "filler"
    with suppress(OSError), open(path, "ab", buffering=0) as file:
        for size in (2**16, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
    return path
