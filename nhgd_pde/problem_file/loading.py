"""Reads a problem file, YAML, into a checked `ProblemSpec`; every mistake is reported with file and line."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nhgd_pde.problem_file.errors import Issue, ProblemError
from nhgd_pde.problem_file.fields import Context, found
from nhgd_pde.problem_file.fields.mistakes import Location
from nhgd_pde.problem_file.scenario_spec import name_complaint
from nhgd_pde.problem_file.schema import ProblemSpec
from nhgd_pde.problem_file.yaml_text import YamlText

if TYPE_CHECKING:
    import numpy as np

OVERRIDE = "--set"
# Keys whose values name other files: a mesh, its facets, data, sensors, Python code as `file.py:name`.
_FILES = ("file", "facets", "at", "python")


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

        It is looked for in the folder of the problem file, in the folder above, in the folder under `files` and in the
        one above that, and in the current one; None if it is in none of them.
        """
        try:
            given, folders = Path(path_text).expanduser(), [self.directory, self.directory.resolve().parent]
            if self.spec.files is not None:
                original = self.directory / Path(self.spec.files).expanduser()
                folders += [original, original.resolve().parent]
            for folder in (*folders, Path()):
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
        return _dumped(self.spec.model_dump(mode="json"))

    def dump_for(self, folder: Path) -> str:
        """The same for a copy in another folder, where the files that it names are found, too."""
        content = self.spec.model_dump(mode="json")
        if self.named_files:
            content["files"] = self.files_from(folder)
        return _dumped(content)

    def files_from(self, folder: Path) -> str:
        """The value of `files` with which a copy in another folder finds the files that it names."""
        original = self.directory / Path(self.spec.files or "").expanduser()
        try:
            return os.path.relpath(original, folder)
        except ValueError:
            # On Windows there is no relative path from one drive to another.
            return str(original.resolve())

    @property
    def named_files(self) -> dict[str, str]:
        """The other files that the problem names, as written, by their keys."""
        values = _leaves(self.spec.model_dump(mode="json"))
        return {key: value for key, value in values if key.rpartition(".")[2] in _FILES and isinstance(value, str)}

    @property
    def in_memory(self) -> list[str]:
        """The keys of functions and meshes in memory, which are not in the file that `dump` writes."""
        spec: Any = self.spec
        if not hasattr(spec, "pde"):
            # A task names its data by files alone.
            return []
        named: list[tuple[str, Any]] = [("mesh.mesh", spec.mesh), ("pde.python", spec.pde)]
        named += [(f"{key}.python", each) for key, each in spec.keyed_controls]
        named += [(f"objective.{k}.python", each) for k, each in enumerate(spec.objective)]
        named += [(f"data.{name}.python", each) for name, each in spec.data.items()]
        given = [(key, getattr(section, key.rpartition(".")[2], None)) for key, section in named]
        return [
            key
            for key, value in given
            # A mesh that a problem.yaml describes is in the folder of that file.
            if value is not None and not isinstance(value, str) and not (key == "mesh.mesh" and self._in_file(key))
        ]

    def _in_file(self, key: str) -> bool:
        """Whether the value of a key has been read from the file."""
        return key in self.lines and self.overridden.isdisjoint(_prefixes(key))

    def mesh_arrays(self) -> dict[str, np.ndarray] | None:
        """The arrays of a mesh in memory, for the run folder; None for other meshes, and for tasks.

        Raises:
            ProblemError: the mesh holds something that cannot be written.
        """
        mesh = getattr(getattr(self.spec, "mesh", None), "mesh", None)
        if mesh is None:
            return None
        # Other problems do without it.
        from .mesh_arrays import arrays_of

        try:
            return arrays_of(mesh)
        except ValueError as error:
            raise self.error("mesh.mesh", f"the mesh cannot be written to a run folder: {error}") from None


def _dumped(content: Mapping[str, Any]) -> str:
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 4096
    yaml.default_flow_style = None
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings and lists."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _leaves(each, f"{prefix}.{number}")
    else:
        yield prefix, value


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


@dataclass(frozen=True)
class RestOfFile:
    """What is right in a file with mistakes.

    Attributes:
        file: the file without what is wrong, with stand-ins for sections that a file must have.
        left_out: the places whose values were left out or replaced.
    """

    file: ProblemFile
    left_out: frozenset[tuple[int | str, ...]]


def read_problem(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None, place: Path | None = None
) -> ProblemFile:
    """Read and check a problem.

    `source` is the path of a YAML file, or the same content as a mapping; `place` is the file that such a mapping was
    read from. `overrides` sets values by dotted path (`{"objective.1.weight": 1e-4}`) before anything is checked.

    Raises ProblemError with every mistake found.
    """
    reading = _Reading(Path(source) if isinstance(source, str | Path) else place)
    data = reading.content(source, overrides or {})
    mistakes: list[tuple[Location, str]] = []
    try:
        spec = _checked(data, reading.context(data))
    except ValidationError as error:
        mistakes = [(each["loc"], each["msg"]) for each in error.errors(include_url=False, include_input=False)]
    else:
        if not reading.issues:
            return reading.file(spec)
    raise reading.refusal(data, mistakes)


@dataclass(frozen=True)
class _Reading:
    """One reading of a file: where each of its keys comes from, and what could not be read."""

    path: Path | None
    lines: dict[str, int] = field(default_factory=dict)
    overridden: set[str] = field(default_factory=set)
    issues: list[Issue] = field(default_factory=list)

    def content(self, source: object, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The content of a source with overrides."""
        if isinstance(source, Mapping):
            data = _plain(source)
        elif self.path is not None:
            data = YamlText(self.path, self.lines, self.issues).read()
        else:
            raise ProblemError([Issue("", f"expected a path or a mapping, found {found(source)}")])
        if not isinstance(data, dict):
            message = f"expected a mapping with {', '.join(ProblemSpec.model_fields)}, found {found(data)}"
            raise ProblemError([*self.issues, self.issue("", message)])
        for key, value in overrides.items():
            complaint = _set(data, key, _plain(value), self.overridden)
            if complaint:
                self.issues.append(Issue(key, complaint, OVERRIDE))
        return data

    def context(self, data: dict[str, Any]) -> Context:
        return replace(_context(data), folder=None if self.path is None else self.path.parent)

    def issue(self, key: str, message: str) -> Issue:
        return Issue(key, message, _place(key, self.path, self.lines, self.overridden))

    def file(self, spec: ProblemSpec) -> ProblemFile:
        return ProblemFile(spec, self.path, self.lines, frozenset(self.overridden))

    def refusal(self, data: dict[str, Any], mistakes: list[tuple[Location, str]]) -> ProblemError:
        """The exception for these mistakes of a content, and for those in the rest of it."""
        # A value that cannot be read is reported once; other expectations at its key are not.
        unread, rest = {each.key for each in self.issues}, None
        if "task" not in data:
            # Files without mistakes are read without loading this.
            from nhgd_pde.problem_file.mending import place_of, rest_of

            context = self.context(data)
            wrong = [*(place for place, _ in mistakes), *(place_of(key) for key in unread if key)]
            left = rest_of(_plain(data), wrong, lambda some, out: _checked(some, replace(context, left_out=out)))
            mistakes = [*mistakes, *left.further]
            rest = None if left.spec is None else RestOfFile(self.file(left.spec), left.left_out)
        checked = [self.issue(".".join(map(str, place)), message) for place, message in mistakes]
        issues = [*self.issues, *(each for each in checked if each.key not in unread)]
        return ProblemError(in_reading_order(issues), rest)


def _checked(data: Mapping[str, Any], context: Context) -> Any:
    """The spec of a content: that of a task, or that of an equation; raises ValidationError."""
    if "task" not in data:
        return ProblemSpec.model_validate(data, context=context)
    # Problems with an equation are read without loading what tasks need.
    from nhgd_pde.problem_file.task_schema import TaskSpec

    return TaskSpec.model_validate(data, context=context)


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
    for given in (data.get("parameters"), data.get("data")):
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


def in_reading_order(issues: Iterable[Issue]) -> list[Issue]:
    """Issues in the order of their lines, those of overrides last."""
    return sorted(issues, key=_reading_order)


def _reading_order(issue: Issue) -> tuple[int, int]:
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
