"""Makes a commented problem file to start from for each kind of equation, from the vocabulary."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticUndefined

from .catalogue import EQUATIONS, found_at
from .control_spec import SourceControl
from .equation_parts import EquationSpec
from .errors import suggest
from .expressions import Expression

_WIDTH = 44


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
        raise ValueError(f"expected one of {', '.join(known)}, found {kind!r}{suggest(kind, known)}")
    section, given = known[kind], known[kind].starter
    assert given is not None
    doc = (section.__doc__ or "").strip().splitlines()[0]
    lines = [
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
