"""Names the schema of problem files in the settings of an editor, Visual Studio Code with its extension for YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .atomic import OutputError, write_atomically

# Files of an installation, relative to the folder of the project.
SETTINGS = Path(".vscode/settings.json")
SCHEMA = Path(".vscode/nhgd-pde.schema.json")
_KEY = "yaml.schemas"


def install(folder: Path, schema: str, patterns: Iterable[str]) -> Path:
    """Write the schema, and the setting that names it for files of these patterns; returns the path of the settings.

    Other settings keep their values and their order.

    Raises:
        OutputError: the settings that are there cannot be read as JSON, or a file cannot be written. Nothing has been
            changed then.
    """
    path = folder / SETTINGS
    before, settings = _read(path)
    files = settings.setdefault(_KEY, {})
    if not isinstance(files, dict):
        raise OutputError(
            f"{path}: expected a mapping under {_KEY!r}, found {type(files).__name__}; nothing was changed"
        )
    name = f"./{SCHEMA.as_posix()}"
    given = files.get(name, [])
    known = list(given) if isinstance(given, list) else [given]
    files[name] = known + [each for each in patterns if each not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SCHEMA, schema)
    after = json.dumps(settings, indent=_indent(before), ensure_ascii=False) + "\n"
    if before is None or json.loads(before) != settings:
        write_atomically(path, after)
    return path


def _read(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The text and the content of the settings; None and an empty mapping where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None, {}
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{path}: cannot be read: {error}; nothing was changed") from None
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        way = f'add "{_KEY}": {{"./{SCHEMA.as_posix()}": ["/*.yaml"]}} by hand'
        message = (
            f"{path}: expected JSON without comments, found a file that is not: {error}; nothing was changed, {way}"
        )
        raise OutputError(message) from None
    if not isinstance(found, dict):
        raise OutputError(f"{path}: expected a mapping, found {type(found).__name__}; nothing was changed")
    return text, found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if [each for each, _ in pairs].count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _indent(text: str | None) -> int | str:
    """The indentation of the first indented line; four blanks without one."""
    for line in (text or "").splitlines():
        blanks = line[: len(line) - len(line.lstrip())]
        if blanks:
            return blanks
    return 4
