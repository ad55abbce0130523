"""Commented problem files to start from: one for each kind of equation, from the vocabulary, and one for each task.

Those for tasks are files of the folder `starters`, some with others beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from .catalogue import EQUATIONS, found_at
from .control_spec import SourceControl
from .equation_parts import EquationSpec
from .errors import suggest
from .expressions import Expression

_WIDTH = 44
_FOLDER = Path(__file__).parent / "starters"

# What a starter is about, and the files of the folder `starters` beside it, each with the end of its name.
TASKS = {
    "topology": ("topology optimisation: the stiffest cantilever of a given volume", {}),
    "inversion": ("an inverse problem: a conductivity from measurements", {"inversion_sensors.csv": "_sensors.csv"}),
    "time_control": ("control of an evolution: a heater in time", {}),
    "uncertainty": ("optimisation over random inputs, with a measure of risk", {}),
    "python": ("an equation and an objective of your own in Python", {"python.py.txt": ".py"}),
}
"""Name of a starter -> what it is about, and its other files: name in the folder `starters` -> end of the new name."""


def starter_files(name: str, stem: str | None = None) -> dict[str, str]:
    """The files of a starter: name of the file -> its text, the problem file first.

    Args:
        name: a kind of equation, or one of `TASKS`.
        stem: the name of the problem file without `.yaml`; by default `name`.

    Raises:
        ValueError: an unknown name.
    """
    stem = stem or name
    if name not in TASKS:
        return {f"{stem}.yaml": starter(name)}
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    beside = {}
    for file, end in TASKS[name][1].items():
        beside[f"{stem}{end}"] = (_FOLDER / file).read_text(encoding="utf-8")
        # The names stand in texts with double quotes.
        text = text.replace(f"{name}{end}", json.dumps(f"{stem}{end}", ensure_ascii=False)[1:-1])
    return {f"{stem}.yaml": f"{editor_line()}\n{text}", **beside}


def editor_line() -> str:
    """The first line of a problem file, by which editors find the schema of this installation."""
    return f"# yaml-language-server: $schema={(Path(__file__).parent / 'schema.json').as_uri()}"


def kinds() -> dict[str, type[EquationSpec]]:
    """The equations that have a starter file, by kind."""
    known = {kind: found_at(place) for kind, place in EQUATIONS.items()}
    return {kind: section for kind, section in known.items() if section.starter is not None}


def starter(kind: str) -> str:
    """The text of a starter file.

    Raises:
        ValueError: an unknown kind.
    """
    known = kinds()
    if kind not in known:
        names = [*known, *TASKS]
        raise ValueError(f"expected one of {', '.join(names)}, found {kind!r}{suggest(kind, names)}")
    section, given = known[kind], known[kind].starter
    assert given is not None
    doc = (section.__doc__ or "").strip().splitlines()[0]
    lines = [
        editor_line(),
        f"# {doc}",
        "# Every key, also of what is left out here: docs/problem_file.md; `nhgd-pde check` finds mistakes.",
        f"name: my_{kind}",
        _line("mesh", given.mesh, "or interval, box, disk, l_shape, or {file: my.msh}"),
        _line("element", *given.element),
        *given.more,
        "pde:",
        f"  kind: {kind}",
    ]
    for name, info in section.model_fields.items():
        if name not in ("kind", "boundary"):
            value = given.pde.get(name) or _written(info.default)
            lines.append(_line(f"  {name}", value, _description(info)))
    lines.append("  boundary:")
    lines += [
        _line(f"    {side}", value, "by side, or by the names of a mesh file") for side, value in given.boundary.items()
    ]
    control = SourceControl.model_fields
    lines += [
        "control:",
        "  kind: source",
        _line("  initial", _written(control["initial"].default), _description(control["initial"])),
        _line("  bounds", "[null, null]", _description(control["bounds"])),
        "objective:",
        _line("  - {kind: tracking, target", f"{given.target}}}", "1/2 int (u - target)^2"),
        _line("  - {kind: regularisation, weight", f"{given.weight}}}", "weight/2 int v^2"),
        _line("output: {every", "10}", "iterations between fields for ParaView; 0: final ones only"),
    ]
    return "\n".join(lines) + "\n"


def _line(key: str, value: str, comment: str) -> str:
    text = f"{key}: {value}"
    return f"{text:<{_WIDTH}}  # {comment}" if comment else text


def _description(info: Any) -> str:
    text = info.description or ""
    for extra in info.metadata:
        text = text or getattr(extra, "description", "") or ""
    return text.rstrip(".")


def _written(value: object) -> str:
    if isinstance(value, Expression):
        return f'"{value.original}"' if isinstance(value.original, str) else str(value.original)
    if value is PydanticUndefined:
        raise ValueError("a key without a default needs a value in its starter")
    return {None: "null", True: "true", False: "false", (): "[]"}.get(value, str(value))  # type: ignore[call-overload]
