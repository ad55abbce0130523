"""Reads a problem file, YAML, into a checked `ProblemSpec`; every mistake is reported with file and line."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nhgd_pde.problem_file.errors import Issue, ProblemError
from nhgd_pde.problem_file.fields import Context, found
from nhgd_pde.problem_file.scenario_spec import name_complaint
from nhgd_pde.problem_file.schema import ProblemSpec
from nhgd_pde.problem_file.yaml_text import YamlText

OVERRIDE = "--set"


@dataclass(frozen=True)
class ProblemFile:
    """A checked problem and where each of its keys was written."""

    spec: ProblemSpec
    path: Path | None = None
    """The file; None for a problem that was given as a mapping."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """The line, from 1, of every key in the file."""
    overridden: frozenset[str] = frozenset()
    """The keys that overrides have set, and those above them that they have created."""

    @property
    def directory(self) -> Path:
        """The folder of the file, or the current one."""
        return self.path.parent if self.path else Path()

    def resolve(self, path_text: str) -> Path | None:
        """The file that the problem means by `path_text`.

        It is looked for in the folder of the problem file, in the folder above, and in the current one; None
        if it is in none of them.
        """
        try:
            given = Path(path_text).expanduser()
            for folder in (self.directory, self.directory.resolve().parent, Path()):
                if (folder / given).is_file():
                    return folder / given
        except (OSError, ValueError, RuntimeError):
            # The text is not a path: it is too long, has a zero byte, or names the home folder of an unknown user.
            return None
        return None

    def issue(self, key: str, message: str) -> Issue:
        """A mistake at `key`, placed at the nearest line that is known."""
        return Issue(key, message, _place(key, self.path, self.lines, self.overridden))

    def error(self, key: str, message: str) -> ProblemError:
        """The exception for a mistake at `key`."""
        return ProblemError([self.issue(key, message)])

    def dump(self) -> str:
        """YAML with every value, defaults too; it reads back to an equal `spec`."""
        yaml = YAML(typ="rt", pure=True)
        yaml.width = 4096
        yaml.default_flow_style = None
        stream = io.StringIO()
        yaml.dump(self.spec.model_dump(mode="json"), stream)
        return stream.getvalue()


def read_dump(text: str) -> dict[str, Any]:
    """The text of `ProblemFile.dump` as plain values.

    Raises:
        ValueError: the text was not written by `ProblemFile.dump`.
    """
    try:
        found = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    if not isinstance(found, dict):
        raise ValueError(f"expected keys and values, found {type(found).__name__}")
    return found


def read_problem(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> ProblemFile:
    """Read and check a problem.

    `source` is the path of a YAML file, or the same content as a mapping. `overrides` sets values by dotted
    path (`{"objective.1.weight": 1e-4}`) before anything is checked.

    Raises ProblemError with every mistake found.
    """
    path: Path | None = None
    lines: dict[str, int] = {}
    issues: list[Issue] = []
    if isinstance(source, Mapping):
        data: Any = _plain(source)
    elif not isinstance(source, str | Path):
        raise ProblemError([Issue("", f"expected a path or a mapping, found {found(source)}")])
    else:
        path = Path(source)
        data = YamlText(path, lines, issues).read()
    overridden: set[str] = set()

    def issue(key: str, message: str) -> Issue:
        return Issue(key, message, _place(key, path, lines, overridden))

    if not isinstance(data, dict):
        message = f"expected a mapping with {', '.join(ProblemSpec.model_fields)}, found {found(data)}"
        raise ProblemError([*issues, issue("", message)])
    for key, value in (overrides or {}).items():
        complaint = _set(data, key, _plain(value), overridden)
        if complaint:
            issues.append(Issue(key, complaint, OVERRIDE))
    try:
        spec = _vocabulary(data).model_validate(data, context=_context(data))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        checked = [issue(".".join(map(str, each["loc"])), each["msg"]) for each in details]
        # A value that cannot be read is reported once; other expectations at its key are not.
        unread = {each.key for each in issues}
        checked = [each for each in checked if each.key not in unread]
        raise ProblemError(sorted([*issues, *checked], key=reading_order)) from None
    if issues:
        raise ProblemError(issues)
    return ProblemFile(spec, path, lines, frozenset(overridden))


def _vocabulary(data: Mapping[str, Any]) -> type[Any]:
    """The keys that a file may have: those of a task, or those of an equation."""
    if "task" not in data:
        return ProblemSpec
    # Problems with an equation are read without loading what tasks need.
    from nhgd_pde.problem_file.task_schema import TaskSpec

    return TaskSpec


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` as the dotted key and its value, read as YAML (`outer.rtol=1e-6`, `mesh.cells=[8, 8]`).

    Raises ProblemError for a text without a key or with a value that is no YAML.
    """
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator or not key:
        raise ProblemError([Issue("", f"expected key=value, found {text!r}", OVERRIDE)])
    try:
        tree = YamlText(None, {}, [])
        parsed = tree.parse(value)
    except ProblemError as error:
        raise ProblemError([Issue(key, each.message, OVERRIDE) for each in error.issues]) from None
    if tree.issues:
        raise ProblemError([Issue(key, each.message, OVERRIDE) for each in tree.issues])
    return key, parsed


def _context(data: Mapping[str, Any]) -> Context:
    """The names that expressions may use besides the coordinates, from a file that has not been checked yet."""
    controls = data.get("control")
    listed = controls if isinstance(controls, list) else [controls]
    named = [each.get("name") for each in listed if isinstance(each, dict) and each.get("kind") == "parameter"]
    given = data.get("parameters")
    named += [name for name in given if name_complaint(name) is None] if isinstance(given, dict) else []
    names = tuple(name for name in named if isinstance(name, str) and name.isidentifier())
    return Context(isinstance(data.get("time"), dict), tuple(dict.fromkeys(names)))


def _place(key: str, path: Path | None, lines: Mapping[str, int], overridden: Collection[str]) -> str | None:
    """The file and line, or the override, that a key comes from."""
    # An override replaces everything below its key.
    if any(prefix in overridden for prefix in _prefixes(key)):
        return OVERRIDE
    line = next((lines[prefix] for prefix in _prefixes(key) if prefix in lines), 1)
    return None if path is None else f"{path}:{line}"


def _prefixes(key: str) -> Iterator[str]:
    """The key and all keys above it: `a.b.c`, `a.b`, `a`."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def reading_order(issue: Issue) -> tuple[int, int]:
    """By which mistakes are sorted: the lines of the file, then the overrides."""
    line = (issue.place or "").rpartition(":")[2]
    return (1, 0) if issue.place == OVERRIDE else (0, int(line) if line.isdigit() else 0)


def _plain(value: Any) -> Any:
    """Mappings and sequences of any type as new dicts and lists.

    Raises:
        ProblemError: they are nested too deeply, or without an end.
    """
    try:
        return _copied(value)
    except RecursionError:
        raise ProblemError([Issue("", "nested too deeply")]) from None


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _copied(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_copied(each) for each in value]
    return value


def _set(data: dict[str, Any], key: str, value: Any, overridden: set[str]) -> str | None:
    """Set the value at a dotted key and create the mappings above it; returns a message where that is impossible."""
    parts = key.split(".")
    if not all(parts):
        return "expected names separated by single dots"
    place: Any = data
    for depth, part in enumerate(parts):
        here = ".".join(parts[: depth + 1])
        parent = ".".join(parts[:depth])
        last = depth == len(parts) - 1
        slot: Any = part
        if isinstance(place, list):
            if not re.fullmatch("[0-9]{1,6}", part) or int(part) >= len(place):
                return f"expected an index below {len(place)} in {parent}, found {part!r}"
            slot = int(part)
        elif not isinstance(place, dict):
            return f"{parent} is {found(place)}, which has no {part!r}; set {parent} as a whole"
        if last:
            place[slot] = value
            overridden.add(here)
        elif isinstance(place, dict) and part not in place:
            place[slot] = {}
            overridden.add(here)
        place = place[slot]
    return None
