"""Writes the results of a benchmark: results.csv, table.md, and figures if they can be drawn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from ..output.atomic import target_of_temporary, write_atomically
from ..output.lock import FolderLock
from ..output.provenance import commit, versions
from ..output.storage import writing
from .figures import pictures
from .results import ProblemResults
from .table import csv_text, markdown

RESULTS, TABLE = "results.csv", "table.md"
_FIGURES = (".png", ".svg", ".pdf")


@contextmanager
def opened_folder(folder: Path) -> Iterator[Path]:
    """The folder of one benchmark, made where it is not there; temporaries of a killed one are swept.

    Raises:
        OutputError: it cannot be made or written to, or another benchmark or run writes to it.
    """
    with writing(folder, "made"):
        folder.mkdir(parents=True, exist_ok=True)
    with closing(FolderLock.take(folder)):
        with writing(folder, "removed"):
            for path in folder.iterdir():
                target = target_of_temporary(path.name)
                if target in (RESULTS, TABLE) or (target is not None and (folder / target).suffix in _FIGURES):
                    path.unlink()
        yield folder


def table_text(results: Sequence[ProblemResults], command: str, remarks: Sequence[str] = ()) -> str:
    """The text of table.md.

    Args:
        command: the line that made them.
        remarks: further lines for the head of the table.
    """
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    cores = f"{os.cpu_count()} cores, at most {torch.get_num_threads()} threads"
    return markdown(results, [command, f"{made}; commit {commit() or 'unknown'}", cores, *remarks])


def write_tables(folder: Path, results: Sequence[ProblemResults], text: str) -> None:
    """Write results.csv, and the text of table.md; raises `StorageError`."""
    write_atomically(folder / RESULTS, csv_text(results))
    write_atomically(folder / TABLE, text)


def write_figures(folder: Path, results: Sequence[ProblemResults]) -> str:
    """Draws all figures; returns a line that says how many."""
    drawn = pictures(results)
    for name, data in drawn.items():
        write_atomically(folder / name, data)
    return f"{len(drawn)} figures in {folder}"
