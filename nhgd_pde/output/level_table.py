"""The table of the meshes of an adaptive run, as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Heading, key, width and format of each column.
_COLUMNS: tuple[tuple[str, str, int, Callable[[Any], str]], ...] = (
    ("mesh", "level", 4, str),
    ("cells", "cells", 11, lambda number: f"{number:,}"),
    ("unknowns", "unknowns", 11, lambda number: f"{number:,}"),
    ("objective", "objective", 16, lambda number: f"{number:.8e}"),
    ("est. error", "estimated_error", 12, lambda number: f"{number:.1e}"),
    ("relative", "relative_error", 10, lambda number: f"{number:.1e}"),
    ("iter", "iterations", 6, str),
    ("solves", "solves", 8, lambda number: f"{number:,}"),
    ("time", "seconds", 10, lambda number: f"{number:.1f} s"),
)


def level_lines(levels: Sequence[Mapping[str, Any]]) -> str:
    """The table, a line per mesh after the headings; empty without meshes."""
    if not levels:
        return ""
    rows = [[title for title, *_ in _COLUMNS]]
    for level in levels:
        values = [(level[key], show) for _, key, _, show in _COLUMNS]
        rows.append(["-" if value is None else show(value) for value, show in values])
    lines = ("".join(f"{text:>{width}}" for text, (_, _, width, _) in zip(row, _COLUMNS, strict=True)) for row in rows)
    return "".join(f"{line}\n" for line in lines)
