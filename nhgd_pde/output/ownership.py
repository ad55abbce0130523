"""Which folders a run may write to, what it deletes there first, and what it leaves alone.

A folder is a run folder if its problem.yaml starts with `HEADER`, or, without that file, if its summary.json is that of
a run. It holds the same problem if the names and the kinds of equations are the same. In a run folder a new run deletes
exactly the names that it writes. Any other folder that is not empty is refused: a mistyped path does no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path
from typing import Any

from .lock import LOCK, FolderLock
from .names import (
    CHECKPOINT,
    CURVATURE_CHECKPOINTS,
    EARLIER_CHECKPOINT,
    FIELDS,
    FIGURE,
    HISTORY,
    LEVEL_MESH,
    LEVEL_TABLE,
    LEVELS,
    LOG,
    MESH,
    POPULATION,
    PROBLEM,
    REPORT,
    SOLUTION,
    STEM,
    SUMMARY,
    SURFACE,
)
from .result_files import RESULTS
from .storage import OutputError, refusal, target_of_temporary, writing

HEADER = "# nhgd-pde run folder: the problem as it was solved\n"
# Entries of a summary.json that every run has.
_SUMMARY_KEYS = {"method", "status", "objective"}
# Keys of a problem file whose values make it another problem.
_IDENTITY = ("name", "pde.kind")
# The files from which a run can go on.
_RESUMABLE = (CHECKPOINT, EARLIER_CHECKPOINT, POPULATION)


@contextmanager
def claimed_for_new(path: Path, problem_yaml: str, overwrite: bool = False) -> Iterator[FolderLock]:
    """The right to write a new run to a folder, which is made where it is not there, parents too.

    Where nothing has been written to it at the end of the block, a folder that was made is removed.

    Args:
        overwrite: the folder may hold a run of another problem.

    Raises:
        OutputError: with nothing changed on disk, when `path` or a folder above it is a file, when the folder holds
            anything but is not a run folder, or the run folder of another problem, or when a folder stands where a file
            of the run would go.
        FolderInUseError: another run writes to the folder.
        StorageError: the folder cannot be made or written to.
    """
    made = _made(path)
    try:
        _refuse_foreign(path)
        with closing(FolderLock.take(path)) as lock:
            # Once more, as another run may have used the folder until now.
            _refuse_foreign(path)
            if not overwrite:
                _refuse_another_problem(path, problem_yaml)
            yield lock
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


@contextmanager
def claimed_for_resume(path: Path) -> Iterator[FolderLock]:
    """The right to go on with the run of a folder, from which temporaries of a killed run are swept.

    Raises:
        OutputError: there is no checkpoint, or the folder is no run folder.
        FolderInUseError: another run writes to the folder.
        StorageError: the folder cannot be written to.
    """
    with writing(path, "read"):
        if not any((path / name).is_file() for name in _RESUMABLE) and not level_folders(path):
            raise OutputError(f"{path / CHECKPOINT}: expected a checkpoint to resume from, found none")
        if not is_ours(path / PROBLEM):
            raise OutputError(f"{path}: expected a run folder to resume, found no {PROBLEM} of an earlier run")
    with closing(FolderLock.take(path)) as lock:
        with writing(path, "removed"):
            sweep(path)
        yield lock


def is_ours(problem: Path) -> bool:
    """Whether a problem.yaml was written by a run."""
    try:
        with open(problem, "rb") as file:
            return file.read(len(HEADER)) == HEADER.encode("ascii")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def is_a_summary(content: Any) -> bool:
    """Whether the content of a summary.json is that of a run."""
    return isinstance(content, dict) and content.keys() >= _SUMMARY_KEYS


def clear(folder: Path) -> None:
    """Delete what an earlier run has written, and its temporaries."""
    with writing(folder, "removed"):
        for level in level_folders(folder):
            for path in [*own_files(level), level / LEVEL_MESH, level / LOCK, level / PROBLEM]:
                path.unlink(missing_ok=True)
            for made in (level / FIELDS, level, level.parent):
                with suppress(OSError):
                    made.rmdir()
        for path in own_files(folder):
            path.unlink()


def clear_results(folder: Path) -> None:
    """Delete the results of an earlier run alone: its log and the runs on coarser meshes stay."""
    with writing(folder, "removed"):
        for path in own_files(folder):
            if path.name not in (LOG, LEVEL_TABLE):
                path.unlink()


def level_folders(folder: Path) -> list[Path]:
    """The folders of the runs on the meshes of an adaptive run, from the coarsest mesh on."""
    return [path.parent for path in sorted(folder.glob(f"{LEVELS}/[0-9][0-9]/{PROBLEM}")) if is_ours(path)]


def sweep(folder: Path) -> None:
    """Delete the temporaries of earlier runs alone.

    Whoever calls this has the lock, so that the processes of those runs are gone.
    """
    for path in own_files(folder):
        if target_of_temporary(path.name) is not None:
            path.unlink()


def _made(path: Path) -> list[Path]:
    """Make a folder; returns the folders that were made, the deepest first."""
    missing = [folder for folder in (path, *path.parents) if not _there(folder)]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        place = Path(error.filename)
        if place.is_symlink() and not place.exists():
            message = f"found a link at {place} that leads nowhere ({place.readlink()})"
        else:
            message = f"found a file at {place}"
        raise OutputError(f"{path}: expected a folder or a new path, {message}") from error
    except OSError as error:
        raise refusal(error, error.filename or path, "made") from error
    return missing


def _there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:
        return True


def _refuse_another_problem(folder: Path, problem_yaml: str) -> None:
    """Raise `OutputError` where the folder holds a run of another problem, or of one that cannot be told."""
    path = folder / PROBLEM
    if not path.exists():
        return
    with writing(path, "read"):
        then, now = _identity(path.read_bytes()), _identity(problem_yaml.encode("utf-8"))
    differing = [key for key in _IDENTITY if then.get(key) != now.get(key)]
    if not differing:
        return
    found = " and ".join(f"{key} = {then[key]!r}" for key in differing if then) or "a run whose problem cannot be read"
    wanted = " and ".join(f"{now.get(key)!r}" for key in differing)
    raise OutputError(
        f"{folder}: holds the results of another problem: found {found}, now {wanted}; "
        "name another folder with --output, or replace those results with --overwrite"
    )


def _identity(text: bytes) -> dict[str, Any]:
    """The values that tell problems apart; nothing of a text that cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(text.decode("utf-8"))
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        return {}
    return {
        key: reduce(lambda value, part: value.get(part) if isinstance(value, dict) else None, key.split("."), content)
        for key in _IDENTITY
    }


def _refuse_foreign(folder: Path) -> None:
    with writing(folder, "read"):
        names = {item.name for item in folder.iterdir()} - {LOCK}
        found = sorted(name for name in names if target_of_temporary(name) != PROBLEM)
        if PROBLEM in found and not is_ours(folder / PROBLEM):
            raise OutputError(f"{folder}: expected a new, empty or run folder, found a {PROBLEM} that no run wrote")
        if found and PROBLEM not in found and not _has_a_summary(folder):
            others = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            raise OutputError(f"{folder}: expected a new, empty or run folder, found other files in it: {others}")
        if found:
            _refuse_misplaced(folder)


def _refuse_misplaced(folder: Path) -> None:
    """Raises `OutputError` where a file stands in place of a folder of the run, or a folder in place of a file."""
    for name in _series():
        if (folder / name).exists() and not (folder / name).is_dir():
            raise OutputError(f"{folder / name}: expected a folder, found a file")
    for path in [*own_files(folder), folder / MESH]:
        if path.is_dir() and not path.is_symlink():
            raise OutputError(f"{path}: expected a file, found a folder")


def _has_a_summary(folder: Path) -> bool:
    try:
        return is_a_summary(json.loads((folder / SUMMARY).read_bytes()))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return False


def _cleared() -> list[str]:
    """The names of the files of a run that are no checkpoints, in the order in which they are deleted.

    The folder must stay recognisable as a run folder until the last file is gone; problem.yaml and the mesh that it
    describes are replaced afterwards.
    """
    names = [SOLUTION, HISTORY, LOG, LEVEL_TABLE, FIGURE, REPORT, SURFACE]
    return [*names, *(name for name in RESULTS if "." in name), SUMMARY]


def _series() -> dict[str, str]:
    """The folders with series of VTU files, and the stems of these files."""
    return {FIELDS: STEM} | {name: name for name in RESULTS if "." not in name}


def own_files(folder: Path) -> list[Path]:
    """The files that earlier runs have written, and their temporaries, in the order in which they may be deleted."""
    # A checkpoint must not outlive the problem that it belongs to.
    paths = [*(folder / name for name in _RESUMABLE), *sorted(folder.glob(CURVATURE_CHECKPOINTS))]
    paths += [folder / name for name in _cleared()]
    for name, stem in _series().items():
        paths += _series_files(folder / name, stem)
    paths += _temporaries(folder)
    return [path for path in paths if path.exists() or path.is_symlink()]


def _series_files(folder: Path, stem: str) -> list[Path]:
    """The files of a series, and their temporaries; the index comes before the files that it names."""
    if not folder.is_dir():
        return []
    frame, index = re.compile(rf"{stem}_[0-9]{{5,}}\.vtu", re.ASCII), f"{stem}.pvd"
    names = sorted(item.name for item in folder.iterdir())
    frames = [name for name in names if frame.fullmatch(target_of_temporary(name) or name)]
    return [folder / name for name in (index, *frames, *(each for each in names if target_of_temporary(each) == index))]


def _temporaries(folder: Path) -> list[Path]:
    """The temporaries, in the folder itself, of files that runs write."""
    written = {*_cleared(), PROBLEM, MESH, *_RESUMABLE}
    targets = {item: target_of_temporary(item.name) or "" for item in folder.iterdir()}
    return [item for item, name in targets.items() if name in written or fnmatchcase(name, CURVATURE_CHECKPOINTS)]
