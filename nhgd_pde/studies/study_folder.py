"""The folder of a study: its file, the rows of its runs, its table, and the names of its run folders."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

from ..output.atomic import write_atomically
from ..output.lock import LOCK, FolderLock
from ..output.names import STUDY
from ..output.ownership import clear
from ..output.storage import OutputError, target_of_temporary, writing
from ..problem_file.loading import ProblemFile
from .designs import PlannedRun, Row
from .table_rows import csv_text, parquet_bytes

HEADER = "# nhgd-pde study folder: the study as it was made\n"
ROWS, TABLE, PARQUET, PICTURE = "study.json", "table.csv", "table.parquet", "figure.png"
# Largest number of characters of the name of a run folder.
_LONGEST = 80


class KnownRun(TypedDict):
    """A run that has ended: the name of its folder, and its record."""

    folder: str
    record: dict[str, Any]


class StudyFolder:
    """An open study folder, of a process that has its lock.

    Attributes:
        path: the folder.
        known: the runs of earlier sessions that have ended, by the marks of their problems.
    """

    def __init__(self, path: Path, known: Mapping[str, KnownRun]) -> None:
        self.path, self.known = path, dict(known)

    def write_study(self, text: str) -> None:
        """Writes study.yaml, by which the folder is recognised."""
        write_atomically(self.path / STUDY, HEADER + text)

    def keep(self, known: Mapping[str, KnownRun], rows: Sequence[Row], findings: Mapping[str, Any]) -> None:
        """Writes the runs that have ended, the rows of this study, and the table."""
        content = {"runs": known, "rows": rows, "findings": findings}
        write_atomically(self.path / ROWS, json.dumps(content, indent=1, default=str) + "\n")
        write_atomically(self.path / TABLE, csv_text(rows))

    def write_parquet(self, rows: Sequence[Row]) -> None:
        """Writes table.parquet if pyarrow is installed."""
        content = parquet_bytes(rows)
        if content is not None:
            write_atomically(self.path / PARQUET, content)


@contextmanager
def opened_study(path: Path, resume: bool, overwrite: bool) -> Iterator[StudyFolder]:
    """The folder of a study, which is made where it is not there.

    Args:
        resume: runs of an earlier session that have ended are kept.
        overwrite: an earlier study, and its runs, are deleted.

    Raises:
        OutputError: the folder holds something else, or a study and neither `resume` nor `overwrite` says what becomes
            of it, or none to go on with.
        FolderInUseError: another study writes to the folder.
    """
    _refuse(path, resume, overwrite)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with writing(path, "made"):
            path.mkdir(parents=True, exist_ok=True)
        with closing(FolderLock.take(path)):
            _refuse(path, resume, overwrite)
            with writing(path, "removed"):
                for each in path.iterdir():
                    if target_of_temporary(each.name) is not None:
                        each.unlink()
                if overwrite:
                    _clear(path)
            yield StudyFolder(path, {} if overwrite else read_rows(path)["runs"])
    finally:
        # Folders in which nothing has been written do not stay.
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()


def _refuse(path: Path, resume: bool, overwrite: bool) -> None:
    """Raises `OutputError` where a study must not be written to a folder."""
    names = _names(path)
    if names and not is_study(path):
        listed = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
        raise OutputError(f"{path}: expected a new, empty or study folder, found other files in it: {listed}")
    if resume and not names:
        raise OutputError(f"{path}: expected a study to resume, found none")
    if names and not resume and not overwrite:
        count = len(read_rows(path)["runs"])
        raise OutputError(
            f"{path}: holds a study, {count:,} of whose runs have ended; --resume goes on with it, --overwrite "
            "begins anew, --output names another folder"
        )


def _names(path: Path) -> set[str]:
    """The names in a folder; none where it is not there. A lock and temporaries do not count."""
    with writing(path, "read"):
        if not path.exists():
            return set()
        if not path.is_dir():
            raise OutputError(f"{path}: expected a folder or a new path, found a file")
        return {each.name for each in path.iterdir() if each.name != LOCK and target_of_temporary(each.name) is None}


def is_study(path: Path) -> bool:
    """Whether a folder is that of a study."""
    try:
        return (path / STUDY).read_bytes().startswith(HEADER.encode())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def read_rows(path: Path) -> dict[str, Any]:
    """The content of study.json: `runs` that have ended by the marks of their problems, `rows`, and `findings`.

    Raises:
        OutputError: the file is damaged.
    """
    try:
        content = json.loads((path / ROWS).read_bytes())
        if not isinstance(content["rows"], list) or not isinstance(content["findings"], dict):
            raise TypeError("expected rows and findings")
        if not all(isinstance(each["folder"], str) and each["record"]["status"] for each in content["runs"].values()):
            raise TypeError("expected runs with a folder and a record")
    except FileNotFoundError:
        return {"runs": {}, "rows": [], "findings": {}}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{path / ROWS}: the file is damaged ({error}); --overwrite begins anew") from error
    return dict(content)


def _clear(path: Path) -> None:
    """Deletes an earlier study: the files that a study and its runs write, and nothing else."""
    try:
        known = read_rows(path)
    except OutputError:
        known = {"runs": {}, "rows": []}
    names = [each.get("folder") for each in (*known["runs"].values(), *known["rows"])]
    for folder in {path / Path(name).name for name in names if name}:
        if folder.is_dir() and not folder.is_symlink():
            clear(folder)
            for name in ("problem.yaml", LOCK):
                (folder / name).unlink(missing_ok=True)
            for inner in (*folder.iterdir(), folder):
                with suppress(OSError):
                    inner.rmdir()
    for name in (ROWS, TABLE, PARQUET, PICTURE):
        (path / name).unlink(missing_ok=True)


def mark_of(file: ProblemFile) -> str:
    """By what a run of a problem is recognised: a checksum of the resolved problem."""
    return hashlib.sha256(file.dump().encode("utf-8", "surrogatepass")).hexdigest()[:24]


def folder_name(run: PlannedRun) -> str:
    """A name for the folder of a run that every file system takes: its number, and its settings as far as they fit."""
    keys = list(run.settings)
    last = [key.rpartition(".")[2] for key in keys]
    parts = [
        f"{_short(short if last.count(short) == 1 else key)}={_short(run.settings[key])}"
        for key, short in zip(keys, last, strict=True)
    ]
    return "_".join([f"{run.number:04d}", *parts])[:_LONGEST].rstrip(".")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "x".join(map(_short, value))
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", str(value))
