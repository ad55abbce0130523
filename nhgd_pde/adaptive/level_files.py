"""The files of an adaptive run beside the runs on its meshes: the table, and the results on the last mesh."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..output.atomic import OutputError, atomic_path, write_atomically
from ..output.names import LEVEL_TABLE, LOG, PROBLEM, SUMMARY
from ..output.ownership import claimed_for_new, claimed_for_resume, clear_results, level_folders, own_files
from ..output.run_folder import RunFolder, read_history
from ..problem import Problem
from ..problem_file.loading import read_dump
from ..run.checkpoint import FREE
from ..run.fingerprint import differences, within
from ..run.mesh_record import MeshRecord
from ..run.solution import Solution

# The keys whose values may differ between an adaptive run and its continuation.
_FREE = (*FREE, "mesh.adapt.tolerance", "mesh.adapt.cells")


class LevelFiles:
    """The run folder of an adaptive run, which holds a run folder for each of its meshes.

    Args:
        folder: its own files, open.
        begun: number of meshes on which an earlier run has begun.
    """

    def __init__(self, folder: RunFolder, begun: int) -> None:
        self._folder, self.path, self.begun = folder, folder.path, begun

    def before(self) -> list[MeshRecord]:
        """The records of the meshes on which the earlier run has ended, without the last mesh.

        Raises:
            OutputError: the table of these meshes is damaged.
        """
        if self.begun < 2:
            return []
        names = [each.name for each in fields(MeshRecord)]
        rows: Any = read_history(self.path / LEVEL_TABLE)[: self.begun - 1]
        if len(rows) < self.begun - 1 or any(list(row) != names for row in rows):
            raise OutputError(f"{self.path / LEVEL_TABLE}: expected {self.begun - 1} rows with {', '.join(names)}")
        return [MeshRecord(**row) for row in rows]

    def log(self, sentence: str) -> None:
        """Adds a sentence to run.log."""
        self._folder.log(sentence)

    def write_table(self, levels: Sequence[MeshRecord]) -> None:
        """Writes levels.csv."""
        self._folder.check()
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, [each.name for each in fields(MeshRecord)], lineterminator="\n")
        table.writeheader()
        table.writerows(map(asdict, levels))
        write_atomically(self.path / LEVEL_TABLE, text.getvalue())

    def publish(self, level: Path, solution: Solution) -> None:
        """Makes the results of the last mesh those of the folder.

        Args:
            level: the run folder of that mesh.
        """
        self._folder.check()
        clear_results(self.path)
        for source in own_files(level):
            if source.name not in (LOG, SUMMARY):
                target = self.path / source.relative_to(level)
                target.parent.mkdir(exist_ok=True)
                with atomic_path(target) as temporary:
                    shutil.copyfile(source, temporary)
        self._folder.log(f"{solution.status}: {solution.message}")
        self._folder.write_summary(solution.stats)


@contextmanager
def opened(problem: Problem, path: Path | None, resume: bool, overwrite: bool) -> Iterator[LevelFiles | None]:
    """The folder of an adaptive run for the length of a `with` block; None for a run without one.

    Raises:
        OutputError: it may not be written to, or there is nothing of this problem to resume.
    """
    if path is None:
        yield None
        return
    text, mesh = problem.yaml(path), problem.file.mesh_arrays()
    if resume:
        with claimed_for_resume(path) as lock:
            _check_same(path, text)
            with RunFolder.resume(path, problem_yaml=text, lock=lock, mesh=mesh) as folder:
                yield LevelFiles(folder, len(level_folders(path)))
    else:
        with (
            claimed_for_new(path, text, overwrite) as lock,
            RunFolder.create(path, text, overwrite=overwrite, lock=lock, mesh=mesh) as folder,
        ):
            yield LevelFiles(folder, 0)


def _check_same(path: Path, text: str) -> None:
    """Refuses to go on with the run of another problem.

    Raises:
        OutputError: a value differs that a continuation may not change, or the folder is not that of an adaptive run.
    """
    try:
        then = read_dump((path / PROBLEM).read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{path / PROBLEM}: the file is damaged ({error})") from error
    for key, old, new in differences(then, read_dump(text)):
        if not within(key, _FREE):
            raise OutputError(f"{path}: the run to resume is of another problem: it has {key} = {old!r}, not {new!r}")
    if not level_folders(path):
        raise OutputError(f"{path}: expected the run of a mesh to resume, found none")
