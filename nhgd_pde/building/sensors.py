"""Measurements at points, from a text file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


class SensorFileError(ValueError):
    """A file that is not a table of measurements."""


@dataclass(frozen=True)
class Sensors:
    """Measurements at points.

    Attributes:
        points: (dim, count).
        values: (components, count).
        weights: (count,) factors of the squared misfits.
        lines: (count,) the line of each sensor in the file, from 1.
    """

    points: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    lines: tuple[int, ...]


def read_sensors(path: Path, dim: int, components: int) -> Sensors:
    """Read a table with one row for each sensor: coordinates, values and maybe a weight.

    Columns are separated by commas or blanks; what follows a # is a comment.

    Raises:
        SensorFileError: not such a table; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SensorFileError(f"cannot be read as text: {getattr(error, 'strerror', None) or error}") from None
    wanted = dim + components
    axes = ", ".join("xyz"[:dim])
    columns = f"{wanted} or {wanted + 1} columns ({axes}, {components} value{'s' * (components > 1)}, maybe a weight)"
    rows: list[list[float]] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if content:
            row = _numbers(number, content)
            _check_row(number, content, row, rows, wanted, columns)
            rows.append(row)
            lines.append(number)
    if not rows:
        raise SensorFileError(f"expected rows of {columns}, found none")
    table = np.array(rows).T
    weights = table[wanted] if len(table) > wanted else np.ones(table.shape[1])
    return Sensors(table[:dim], table[dim:wanted], weights, tuple(lines))


def _numbers(line: int, content: str) -> list[float]:
    words = [word.strip() for word in content.split(",")] if "," in content else content.split()
    try:
        return [float(word) for word in words]
    except ValueError:
        raise SensorFileError(f"line {line}: expected numbers, found {content[:60]!r}") from None


def _check_row(line: int, content: str, row: list[float], before: list[list[float]], wanted: int, columns: str) -> None:
    """Raise a `SensorFileError` if a row has too few columns (`wanted`, or one more) or values that no sensor has."""
    if len(row) not in (wanted, wanted + 1) or (before and len(row) != len(before[0])):
        expected = f"{len(before[0])} as above" if before else columns
        raise SensorFileError(f"line {line}: expected {expected}, found {len(row)}")
    if not np.isfinite(row).all():
        raise SensorFileError(f"line {line}: expected finite numbers, found {content[:60]!r}")
    if len(row) > wanted and row[-1] < 0.0:
        raise SensorFileError(f"line {line}: expected a weight of at least 0, found {row[-1]:g}")
