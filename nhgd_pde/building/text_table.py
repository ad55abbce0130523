"""Tables of numbers in text files, with a line of names or without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


class TableError(ValueError):
    """A file that is not a table of numbers."""


@dataclass(frozen=True)
class TextTable:
    """A table of numbers.

    Attributes:
        names: of the columns; none where the file has no line of names.
        rows: (count, columns).
        lines: (count,) the line of each row in the file, from 1.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    lines: tuple[int, ...]


def read_text_table(path: Path) -> TextTable:
    """Read a table: columns are separated by semicolons, commas or blanks, and what follows a # is a comment.

    The first line may be one of names, in quotes or without: those of which no word is a number.

    Raises:
        TableError: not such a table, or one without rows; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"cannot be read as text: {getattr(error, 'strerror', None) or error}") from None
    names: tuple[str, ...] = ()
    rows: list[list[float]] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = _words(line.partition("#")[0])
        if not words:
            continue
        if not rows and not names:
            names = _names(number, words)
            if names:
                continue
        row = _numbers(number, words)
        width = len(names) or (len(rows[0]) if rows else len(row))
        if len(row) != width:
            raise TableError(f"line {number}: expected {width} columns as above, found {len(row)}")
        rows.append(row)
        lines.append(number)
    if not rows:
        raise TableError("expected rows of numbers, found none")
    return TextTable(names, np.array(rows), tuple(lines))


def _words(content: str) -> list[str]:
    separator = next((mark for mark in ";," if mark in content), None)
    return [word.strip() for word in content.split(separator)]


def _names(line: int, words: list[str]) -> tuple[str, ...]:
    """The names of columns; none where a word is a number or missing."""
    if not all(words) or any(_is_number(word) for word in words):
        return ()
    names = tuple(word.strip("\"'") for word in words)
    if len(set(names)) < len(names):
        raise TableError(f"line {line}: expected names that differ, found {', '.join(names)}")
    return names


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        # A number with a decimal comma, or in quotes, is no name.
        return word.strip("\"'+-").replace(",", "").replace(".", "").isdigit()
    return True


def _numbers(line: int, words: list[str]) -> list[float]:
    found = repr(", ".join(words)[:60])
    try:
        if "_" in found:
            # Python reads 1_000 as a number.
            raise ValueError
        row = [float(word) for word in words]
    except ValueError:
        if any("," in word or len(word.split()) > 1 for word in words):
            found += " (the decimal mark is a point)"
        raise TableError(f"line {line}: expected numbers, found {found}") from None
    if not np.isfinite(row).all():
        raise TableError(f"line {line}: expected finite numbers, found {found}")
    return row
