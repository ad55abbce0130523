"""The rows of the table of a study, one a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..problem_file.loading import ProblemFile
from .designs import PlannedRun, Row
from .one_run import Record

# Columns that follow the settings, before and after the terms of the objective.
_FIRST = ("status", "objective")
_LAST = (
    "control_norm",
    "gradient_norm",
    "iterations",
    "solves",
    "factorisations",
    "state_dofs",
    "control_dofs",
    "size",
)
_END = ("seconds", "start", "attempts", "folder", "message")
_UNWEIGHTED = "unweighted_"


def row_of(run: PlannedRun, record: Record, folder: str, file: ProblemFile | None) -> Row:
    """The row of a run.

    Args:
        folder: the name of its run folder.
        file: its problem; None where that cannot be read.
    """
    row: Row = {"run": run.number, **run.settings, **{name: record.get(name) for name in _FIRST}}
    terms = record.get("terms") or {}
    row |= {f"term_{name}": value for name, value in terms.items()}
    weights = {} if file is None else weights_of(file)
    row |= {f"{_UNWEIGHTED}{name}": terms[name] / weights[name] for name in terms if weights.get(name)}
    row |= {name: record.get(name) for name in (*_LAST, *_END)}
    row |= {"attempts": record.get("attempts", 1), "folder": folder}
    return row


def weights_of(file: ProblemFile) -> dict[str, float]:
    """The weights of the terms of the objective that are numbers, by the names of the terms."""
    from ..problem_file.expressions import Expression

    sections: Sequence[Any] = getattr(file.spec, "objective", ())
    found = {}
    for name, section in zip(names_of_terms(file), sections, strict=False):
        weight = getattr(section, "weight", None)
        if isinstance(weight, Expression):
            weight = weight.constant
        if isinstance(weight, int | float) and weight:
            found[name] = float(weight)
    return found


def names_of_terms(file: ProblemFile) -> list[str]:
    """The names of the terms of the objective, as in history.csv."""
    kinds = [each.kind for each in getattr(file.spec, "objective", ())]
    return [kind if kinds.count(kind) == 1 else f"{kind}_{k}" for k, kind in enumerate(kinds)]


def measure(row: Mapping[str, Any], name: str) -> float | None:
    """A number of a row: a column, or a term of the objective without its weight; None where there is none."""
    for key in (f"{_UNWEIGHTED}{name}", name):
        value = row.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def ended(row: Mapping[str, Any]) -> bool:
    """Whether the run of a row has ended with an answer."""
    return row["status"] in ("converged", "stopped")


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of all rows: settings that only some runs have, and the terms, stand in their places."""
    found: dict[str, None] = {"run": None}
    rows = list(rows)
    fixed = (*_FIRST, *_LAST, *_END)
    terms = ("term_", _UNWEIGHTED)
    every = [key for row in rows for key in row]
    for key in every:
        if key not in fixed and not key.startswith(terms):
            found[key] = None
    found |= dict.fromkeys(_FIRST)
    for start in terms:
        found |= {key: None for key in every if key.startswith(start)}
    return [*found, *_LAST, *_END]


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The content of table.csv: values with all digits."""
    stream, columns = io.StringIO(), columns_of(rows)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row.get(key) is None else _cell(row[key]) for key in columns])
    return stream.getvalue()


def _cell(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def parquet_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The content of table.parquet; None where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return None
    columns = columns_of(rows)
    table = pyarrow.table({key: _column([row.get(key) for row in rows]) for key in columns})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def _column(values: list[Any]) -> list[Any]:
    """Values of one type: numbers stay numbers, anything else becomes text."""
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        whole = all(value is None or isinstance(value, int) for value in values)
        return [value if value is None or whole else float(value) for value in values]
    return [None if value is None else str(value) for value in values]


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for people: what was varied, and what was found."""
    left_out = {*_LAST, *_END} - {"iterations", "solves", "seconds"}
    columns = [each for each in columns_of(rows) if each not in left_out and not each.startswith(_UNWEIGHTED)]
    cells = [[_short(row.get(key)) for key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [columns, *cells]
    return "\n".join("  ".join(each.rjust(w) for each, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "x".join(map(_short, value))
    return str(value)
