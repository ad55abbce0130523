"""The mesh in a run folder whose problem has its mesh in memory: arrays of NumPy in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from .atomic import OutputError, atomic_path
from .names import MESH
from .sealed import DamagedError, first_line
from .storage import StorageError, writing

Content = TypeVar("Content")


def keep_mesh(folder: Path, arrays: Mapping[str, np.ndarray] | None) -> None:
    """Makes the mesh in a run folder that of its problem, whole or not at all; the same mesh is not written again.

    Args:
        arrays: those of the mesh; None where the problem has no mesh in memory.

    Raises:
        StorageError: the system does not take the file, or does not remove the one of an earlier problem.
    """
    path = folder / MESH
    if arrays is None:
        with writing(path, "removed"):
            path.unlink(missing_ok=True)
    elif not _holds(path, arrays):
        with atomic_path(path) as temporary, open(temporary, "xb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def read_kept(path: Path, made: Callable[[Mapping[str, np.ndarray]], Content]) -> Content:
    """What is made of the arrays in the file.

    Raises:
        DamagedError: the file is damaged: its checksums are wrong, or nothing can be made of its arrays.
        StorageError: the system does not let us read it.
    """
    try:
        with writing(path, "read"), open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            return made({name: content[name] for name in content.files})
    except StorageError:
        raise
    except Exception as error:  # NumPy and zipfile have a dozen ways to object
        raise DamagedError(f"{path}: not a mesh that can be read ({first_line(error)})") from error


def _holds(path: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether these very arrays are in a file."""
    try:
        return path.is_file() and read_kept(path, lambda found: _same(found, arrays))
    except OutputError:
        return False


def _same(some: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> bool:
    return some.keys() == others.keys() and all(
        one.dtype == others[name].dtype and one.shape == others[name].shape and one.tobytes() == others[name].tobytes()
        for name, one in some.items()
    )
