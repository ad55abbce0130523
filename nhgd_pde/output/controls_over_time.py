"""The table of the controls that vary in time: `controls_over_time.csv`, and the curves in it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .storage import OutputError, writing

_NUMBERS = ("from", "to", "value", "lower", "upper")


@dataclass(frozen=True, eq=False)
class TimeCurve:
    """One component of a control that varies in time, or the norm of a control that is a field as well.

    Attributes:
        control: the name of the control.
        label: what the values are: empty for a single number, else `component 1`, `at x = 1`, or `norm`.
        starts, ends: (k,) each value is that from `starts` to `ends`; at one time where the two are equal.
        values: (k,).
        lower, upper: (k,) bounds of the values, -inf and inf where there are none.
    """

    control: str
    label: str
    starts: np.ndarray
    ends: np.ndarray
    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def is_norm(self) -> bool:
        return self.label == "norm"

    def rows(self) -> Iterator[Mapping[str, object]]:
        """The rows of the table; bounds that are not there are empty cells."""
        columns = (self.starts, self.ends, self.values, self.lower, self.upper)
        for cells in zip(*(each.tolist() for each in columns), strict=True):
            bounds = (each if np.isfinite(each) else None for each in cells[3:])
            numbers = dict(zip(_NUMBERS, (*cells[:3], *bounds), strict=True))
            yield {"control": self.control, "of": self.label, **numbers}


def read_curves(path: Path) -> list[TimeCurve]:
    """The curves of a table; none where there is no such file.

    Raises:
        OutputError: the file is damaged.
    """
    if not path.exists():
        return []
    found: dict[tuple[str, str], list[list[float]]] = {}
    try:
        with writing(path, "read"), open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                cells = [row["from"], row["to"], row["value"], row["lower"] or "-inf", row["upper"] or "inf"]
                found.setdefault((row["control"], row["of"]), []).append([float(each) for each in cells])
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{path}: the file is damaged ({type(error).__name__}: {error})") from error
    return [_curve(*key, rows) for key, rows in found.items()]


def _curve(control: str, label: str, rows: Sequence[Sequence[float]]) -> TimeCurve:
    return TimeCurve(control, label, *np.array(rows, dtype=float).T)
