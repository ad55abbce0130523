"""The folder that a run writes: problem, summary, history, log, checkpoint and fields, under fixed names.

`ownership` decides into which folders a run may write, and what it deletes there first.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import OutputError, write_atomically
from .fields import FieldData, FieldSeries, Grid, write_vtu
from .lines import LineFile
from .lock import FolderLock
from .names import (
    ARRAYS,
    FIELDS,
    FIGURE,
    FINAL,
    HISTORY,
    IMAGES,
    LOG,
    MESH,
    PROBLEM,
    REPORT,
    STEM,
    STUDY,
    SUMMARY,
    SURFACE,
)
from .ownership import HEADER, claimed_for_new, clear, is_a_summary, is_ours
from .storage import writing
from .strict_json import json_text, plain_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["HEADER", "OutputError", "RunFolder", "read_ended", "read_history"]

# What the times of the series of iterates are.
ITERATIONS = "the outer iteration, not a time"
_INTEGER = re.compile(r"[+-]?[0-9]+")

Cell = float | int | str | None


class RunFolder:
    """An open run folder; made by `create` or `resume`, closed by `close` or at the end of a `with` block."""

    def __init__(
        self,
        path: Path,
        fields: FieldSeries,
        lock: FolderLock,
        held: ExitStack,
        columns: tuple[str, ...] | None = None,
    ) -> None:
        self.path, self.fields = path, fields
        self._lock, self._held, self._columns = lock, held, columns
        self._history, self._log = LineFile(path / HISTORY), LineFile(path / LOG)
        self.warnings: list[str] = []
        self._started = time.monotonic()
        self._closed = False

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        problem_yaml: str,
        *,
        overwrite: bool = False,
        lock: FolderLock | None = None,
        mesh: Mapping[str, np.ndarray] | None = None,
    ) -> RunFolder:
        """Make the folder, parents too, with its problem.yaml; an earlier run's folder is cleared first.

        `mesh` are the arrays of a mesh in memory, which problem.yaml describes.

        `lock` is from `claimed_for_new`, which is asked for it here where none is given, with `overwrite`, and raises
        what it raises. The folder is then free again when it is closed.
        """
        folder = Path(path)
        with ExitStack() as stack:
            lock = lock or stack.enter_context(claimed_for_new(folder, problem_yaml, overwrite))
            clear(folder)
            _write_problem(folder, problem_yaml, mesh)
            return cls(folder, FieldSeries(folder / FIELDS, STEM, ITERATIONS), lock, stack.pop_all())
        raise AssertionError("not reached")

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        *,
        up_to: int | None = None,
        problem_yaml: str | None = None,
        lock: FolderLock | None = None,
        mesh: Mapping[str, np.ndarray] | None = None,
    ) -> RunFolder:
        """Open an earlier run's folder to go on with it; nothing is cleared.

        Its problem.yaml is replaced where it is given, with the mesh that it describes.

        The picture, the report and the surface of the earlier run are removed.
        With `up_to`, the iteration of the checkpoint, rows and fields of later iterations leave the history
        and the field index: the resumed run writes them again. An incomplete last row of a killed run is
        dropped. `lock` is from `claimed_for_resume`; without one it is taken here. Raises `OutputError` when `path` is
        not a run folder.
        """
        folder = Path(path)
        with writing(folder / PROBLEM, "read"):
            if not is_ours(folder / PROBLEM):
                raise OutputError(f"{folder}: expected a run folder to resume, found no {PROBLEM} of an earlier run")
        with ExitStack() as stack:
            lock = lock or stack.enter_context(closing(FolderLock.take(folder)))
            for name in (FIGURE, REPORT, SURFACE):
                with writing(folder / name, "removed"):
                    (folder / name).unlink(missing_ok=True)
            columns = _mend_history(folder / HISTORY, up_to) if (folder / HISTORY).exists() else None
            if problem_yaml is not None:
                _write_problem(folder, problem_yaml, mesh)
            series = FieldSeries.resume(folder / FIELDS, STEM, ITERATIONS, up_to=up_to)
            return cls(folder, series, lock, stack.pop_all(), columns)
        raise AssertionError("not reached")

    def check(self) -> None:
        """Make sure that the folder is still this run's; raises `StorageError` if it was deleted or taken over."""
        if self._closed:
            raise OutputError(f"{self.path}: the run folder has been closed")
        self._lock.check()

    def append_history(self, row: Mapping[str, Cell]) -> None:
        """Add one row to history.csv, on disk when this returns; the first row decides the columns.

        None is an empty cell; numbers keep all their digits. Raises `OutputError` for a row with other
        columns or none, or with a value that is neither a number nor one line of text.
        """
        if self._columns is not None and set(row) != set(self._columns):
            missing = ", ".join(name for name in self._columns if name not in row) or "none"
            extra = ", ".join(name for name in row if name not in self._columns) or "none"
            raise OutputError(
                f"{self.path / HISTORY}: columns missing from the row: {missing}; not in the file: {extra}"
            )
        if not row:
            raise OutputError(f"{self.path / HISTORY}: expected a row with columns, found none")
        columns = self._columns or tuple(row)
        lines = _csv_line({name: name for name in columns}) if self._columns is None else ""
        lines += _csv_line({name: row[name] for name in columns})
        self.check()
        self._columns = columns
        self._history.append(lines)

    def complete_history(self) -> None:
        """Write the rows that could not be written before; raises `StorageError` if they still cannot."""
        self.check()
        self._history.append("")

    @property
    def history_extent(self) -> dict[str, int | str]:
        """Length and checksum of history.csv, by which a checkpoint knows it again."""
        return self._history.extent

    def write_summary(self, summary: Mapping[str, object]) -> None:
        """Write summary.json as strict JSON in the given order; NaN and infinities become null.

        Numbers and arrays of numpy and torch, paths, lists and mappings are taken; anything else raises
        `OutputError` naming the key.
        """
        self.write_text(SUMMARY, json_text(summary, SUMMARY))

    def write_numbers(self, name: str, numbers: Mapping[str, object]) -> None:
        """Write a file of numbers as `write_summary` does; an empty mapping writes nothing."""
        if numbers:
            self.write_text(name, json_text(numbers, name))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        self._write(name, text)

    def log(self, text: str) -> None:
        """Append `text` to run.log, each of its lines after the seconds since the folder was opened."""
        self.check()
        elapsed = time.monotonic() - self._started
        self._log.append("".join(f"{elapsed:10.2f} s  {line}\n" for line in text.splitlines() or [""]))

    def warn(self, text: str) -> None:
        """Note a sentence on a part of the result that is missing, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def write_final(self, grid: Grid, fields: FieldData) -> Path:
        """Write final.vtu and return its path."""
        return self.write_fields(FINAL, grid, fields)

    def write_fields(self, name: str, grid: Grid, fields: FieldData) -> Path:
        """Write a .vtu file and return its path; `warnings` get the sentences on fields that are left out."""
        self.check()
        for text in fields.left_out:
            self.warn(text)
        write_vtu(self._place(name), grid, fields)
        return self.path / name

    def write_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write result.npz; without arrays, write nothing."""
        if arrays:
            content = io.BytesIO()
            np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
            self._write(ARRAYS, content.getvalue())

    def write_images(self, figure: Figure | None) -> None:
        """Write images.png; without a figure, write nothing."""
        if figure is not None:
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=120)
            self._write(IMAGES, content.getvalue())

    def _write(self, name: str, content: str | bytes) -> None:
        self.check()
        write_atomically(self._place(name), content)

    def _place(self, name: str) -> Path:
        """The path of a file, whose folder is made where it is not there."""
        path = self.path / name
        if path.parent != self.path:
            with writing(path.parent, "made"):
                path.parent.mkdir(exist_ok=True)
        return path

    def write_table(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Write a table such as scenarios.csv, whose rows all have the same columns; without rows, write nothing."""
        lines: list[str] = []
        for row in rows:
            lines += [_csv_line(row)] if lines else [_csv_line({name: name for name in row}), _csv_line(row)]
        if lines:
            self.write_text(name, "".join(lines))

    def write_series(self, name: str, frames: Iterable[tuple[Grid, FieldData]]) -> None:
        """Write a series in time, NAME/NAME.pvd, in the order of `frames`; without frames, write nothing."""
        series = FieldSeries(self.path / name, name)
        for index, (grid, fields) in enumerate(frames):
            self.check()
            for text in fields.left_out:
                self.warn(text)
            series.add(index, fields.time, grid, fields)

    def close(self) -> None:
        """Close the history and the log, and free the folder; a second call does nothing."""
        self._closed = True
        self._history.close()
        self._log.close()
        self._held.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _write_problem(folder: Path, problem_yaml: str, mesh: Mapping[str, np.ndarray] | None) -> None:
    """Write problem.yaml, then the mesh that it describes: a folder with that file is known to be a run folder."""
    write_atomically(folder / PROBLEM, problem_yaml if problem_yaml.startswith(HEADER) else HEADER + problem_yaml)
    if mesh is not None or (folder / MESH).exists():
        # Other problems are solved without loading this.
        from .kept_mesh import keep_mesh

        keep_mesh(folder, mesh)


def read_ended(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """problem.yaml, as text, and summary.json of a run that has ended.

    Raises `OutputError` when `path` is no run folder, when the run has not ended, and for files that are damaged.
    """
    folder = Path(path)
    with writing(folder, "read"):
        return _read_ended(folder)


def _read_ended(folder: Path) -> tuple[str, dict[str, Any]]:
    if not folder.is_dir():
        raise OutputError(f"{folder}: expected a run folder, found {'a file' if folder.exists() else 'nothing'}")
    if not is_ours(folder / PROBLEM):
        raise OutputError(f"{folder}: expected a run folder, found {_found_instead(folder)}")
    if not (folder / SUMMARY).exists():
        raise OutputError(
            f"{folder}: expected a run that has ended, found no {SUMMARY}: the run goes on, or was cut off; "
            "`nhgd-pde solve FILE --resume` takes it to its end"
        )
    try:
        text, summary = (folder / PROBLEM).read_text(encoding="utf-8"), json.loads((folder / SUMMARY).read_bytes())
    except ValueError as error:
        raise OutputError(f"{folder}: {PROBLEM} or {SUMMARY} is damaged ({error})") from error
    if not is_a_summary(summary):
        raise OutputError(f"{folder / SUMMARY}: expected the summary of a run, found something else: it is damaged")
    return text, summary


def _found_instead(folder: Path) -> str:
    """What a folder without a run is, in words: a study or another folder with run folders, one of which is named."""
    runs = sorted(each for each in folder.iterdir() if _is_run(each))
    if not runs:
        return f"no {PROBLEM} of a run in it"
    what = "a study" if (folder / STUDY).exists() else "a folder of runs"
    return f"{what}: give the folder of one of its runs, such as {runs[0]}"


def _is_run(folder: Path) -> bool:
    # Folders that may not be read are none of the user's runs.
    with suppress(OSError):
        return is_ours(folder / PROBLEM)
    return False


def read_history(path: str | os.PathLike[str], up_to: int | None = None) -> list[dict[str, Cell]]:
    """Rows of a history.csv, given as the file or its run folder; with `up_to`, those until that iteration.

    A cell of digits is an int, any other number (nan and inf too) a float, an empty cell None, the rest text.
    An incomplete last row, as a run killed in mid-write may leave, is not returned.
    """
    file = Path(path) / HISTORY if Path(path).is_dir() else Path(path)
    columns, rows = _history_cells(file, up_to)
    return [dict(zip(columns, map(_value, row), strict=True)) for row in rows]


def _history_cells(path: Path, up_to: int | None) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and complete rows as text; no cell holds a line break, so the last one ends a whole row."""
    try:
        with writing(path, "read"):
            data = path.read_bytes()
        lines = list(csv.reader(io.StringIO(data[: data.rfind(b"\n") + 1].decode("utf-8"), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise OutputError(f"{path}: the file is damaged ({error})") from error
    if not lines:
        return (), []
    for number, row in enumerate(lines[1:], start=2):
        if len(row) != len(lines[0]):
            raise OutputError(f"{path}:{number}: expected {len(lines[0])} cells, found {len(row)}")
    columns, rows = tuple(lines[0]), lines[1:]
    return columns, rows if up_to is None else _rows_up_to(path, columns, rows, up_to)


def _mend_history(path: Path, up_to: int | None) -> tuple[str, ...] | None:
    """Drop an incomplete last row and the rows after iteration `up_to`; return the columns, if any."""
    columns, rows = _history_cells(path, up_to)
    text = "".join(_csv_line(dict(zip(columns, row, strict=True))) for row in [list(columns), *rows] if row)
    write_atomically(path, text)
    return columns or None


def _rows_up_to(path: Path, columns: tuple[str, ...], rows: list[list[str]], up_to: int) -> list[list[str]]:
    if not rows:
        return rows
    if "iteration" not in columns:
        raise OutputError(f"{path}: expected a column 'iteration', found {', '.join(columns)}")
    at = columns.index("iteration")
    numbers = [_value(row[at]) for row in rows]
    for line, number in enumerate(numbers, start=2):
        if not isinstance(number, int):
            raise OutputError(f"{path}:{line}: iteration: expected an integer, found {number!r}")
    return [row for row, number in zip(rows, numbers, strict=True) if isinstance(number, int) and number <= up_to]


def _csv_line(row: Mapping[str, object]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow([_cell(name, value) for name, value in row.items()])
    return line.getvalue()


def _cell(name: str, value: object) -> str:
    value = plain_value(value, f"{HISTORY}: column {name!r}", finite=False)
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int | str) and not {"\n", "\r"} & set(str(value)):
        return str(value)
    raise OutputError(f"{HISTORY}: column {name!r}: expected a number or one line of text, found {value!r}")


def _value(cell: str) -> Cell:
    if not cell:
        return None
    if _INTEGER.fullmatch(cell):
        return int(cell)
    try:
        return cell if "_" in cell else float(cell)
    except ValueError:
        return cell
