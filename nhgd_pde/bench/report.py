"""Writes what a benchmark has found: results.csv, table.md, and figures where they can be drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..output.atomic import OutputError, write_atomically
from ..run.provenance import commit, versions
from .figures import pictures
from .results import ProblemResults
from .table import csv_text, markdown


def open_folder(folder: Path) -> Path:
    """The folder, made where it is not there.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: expected a folder that can be written to")
    return folder


def write_tables(folder: Path, results: Sequence[ProblemResults], command: str, remarks: Sequence[str] = ()) -> str:
    """Write results.csv and table.md; returns the text of the latter.

    Args:
        folder: from `open_folder`.
        results: of all problems so far.
        command: the line that made them.
        remarks: further lines for the head of the table.
    """
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    cores = f"{os.cpu_count()} cores, at most {torch.get_num_threads()} threads"
    text = markdown(results, [command, f"{made}; commit {commit() or 'unknown'}", cores, *remarks])
    write_atomically(folder / "results.csv", csv_text(results))
    write_atomically(folder / "table.md", text)
    return text


def write_figures(folder: Path, results: Sequence[ProblemResults]) -> str:
    """Draw everything; returns a line that says what became of it."""
    try:
        drawn = pictures(results)
    except ImportError:
        return "figures are skipped: matplotlib is not installed (pip install 'nhgd-pde[plot]')"
    for name, data in drawn.items():
        write_atomically(folder / name, data)
    return f"{len(drawn)} figures in {folder}"
