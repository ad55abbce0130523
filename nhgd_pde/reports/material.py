"""What a report is made from: the content of a run folder, or a solution in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..output.field_layout import Pictured
from ..output.fields import read_vtu
from ..output.figure import pictured_in
from ..output.names import FINAL, HISTORY, IMAGES, POSTERIOR_FIELDS, POSTERIOR_NUMBERS, SCENARIOS
from ..output.run_folder import read_ended, read_history
from ..output.storage import OutputError, writing


@dataclass(frozen=True, eq=False)
class Material:
    """A run that has ended.

    Attributes:
        problem_yaml: the resolved problem file.
        summary: the content of summary.json.
        history: the rows of history.csv; may be empty.
        shown: the fields that are drawn; None for none.
        scenarios: the rows of scenarios.csv; empty without random inputs.
        images: the content of images.png; None for none.
        posterior: the content of posterior.json; empty without a posterior.
        posterior_fields: the fields of posterior.vtu; None without.
    """

    problem_yaml: str
    summary: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()
    shown: Pictured | None = None
    scenarios: Sequence[Mapping[str, Any]] = ()
    images: bytes | None = None
    posterior: Mapping[str, Any] = field(default_factory=dict)
    posterior_fields: Pictured | None = None


def content_of(problem_yaml: str) -> dict[str, Any]:
    """The values of a resolved problem file.

    Raises:
        ValueError: it is no mapping in YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(problem_yaml)
    except (YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError("expected a mapping")
    return content


def material_in(folder: Path) -> Material:
    """The material of a run folder.

    Raises:
        OutputError: there is no run that has ended, or a file is damaged.
    """
    text, summary = read_ended(folder)
    images = folder / IMAGES
    with writing(folder, "read"):
        return Material(
            text,
            summary,
            read_history(folder) if (folder / HISTORY).exists() else (),
            pictured_in(folder) if (folder / FINAL).exists() else None,
            _scenarios(folder / SCENARIOS) if (folder / SCENARIOS).exists() else (),
            images.read_bytes() if images.exists() else None,
            json.loads((folder / POSTERIOR_NUMBERS).read_bytes()) if (folder / POSTERIOR_NUMBERS).exists() else {},
            Pictured(*read_vtu(folder / POSTERIOR_FIELDS)) if (folder / POSTERIOR_FIELDS).exists() else None,
        )


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Turns an error over missing or wrong values in the files of a folder into an `OutputError`."""
    try:
        yield
    except (OutputError, OSError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        said = " ".join(str(error).split())[:200]
        raise OutputError(f"{folder}: a file of the run is damaged ({type(error).__name__}: {said})") from error


def _scenarios(path: Path) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{name: float(row[name]) for name in ("sample", "weight", "objective")} for row in rows]
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{path}: the file is damaged ({type(error).__name__}: {error})") from error
