"""Reads a study file, and checks the problem of every run before anything runs; mistakes have file and line."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from ruamel.yaml import YAML

from ..problem_file.errors import Issue, ProblemError, suggest
from ..problem_file.fields import found
from ..problem_file.loading import OVERRIDE, ProblemFile, in_reading_order, read_problem
from ..problem_file.yaml_text import YamlText
from .study_spec import KINDS, ListSpec, StudySpec


@dataclass(frozen=True, eq=False)
class StudyFile:
    """A checked study, and where each of its keys was written.

    Attributes:
        path: the file; None for a study that was given as a mapping.
        lines: the line, from 1, of every key in the file.
        settings: of all runs, from the command line; they come after those of the file.
    """

    spec: StudySpec
    path: Path | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def issue(self, key: str, message: str) -> Issue:
        """A mistake at a key of the study."""
        return Issue(key, message, self._place(key))

    def error(self, key: str, message: str) -> ProblemError:
        """The exception for a mistake at a key of the study."""
        return ProblemError([self.issue(key, message)])

    def _place(self, key: str) -> str | None:
        if self.path is None:
            return None
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.path}:{self.lines.get(key, 1)}"

    @property
    def problem(self) -> Path | Mapping[str, Any]:
        """The problem file, or its content.

        Raises:
            ProblemError: there is no such file.
        """
        given = self.spec.problem
        if isinstance(given, Mapping):
            return given
        folder = Path() if self.path is None else self.path.parent
        # As with the files that a problem names: in the folder of the file, in that above, and in the current one.
        for place in (folder, folder.resolve().parent, Path()):
            try:
                if (place / Path(given).expanduser()).is_file():
                    return place / Path(given).expanduser()
            except (OSError, ValueError, RuntimeError):
                break
        where = "" if self.path is None else f" in {folder}, in the folder above, or in the current one"
        raise self.error("problem", f"expected a problem file, found no {given!r}{where}")

    def problem_of(self, settings: Mapping[str, Any]) -> ProblemFile:
        """The problem of a run.

        Raises:
            ProblemError: everything that is wrong with it.
        """
        return read_problem(self.problem, {**self.spec.overrides, **settings, **self.settings})

    def checked(self, runs: Sequence[Mapping[str, Any]]) -> list[ProblemFile]:
        """The problems of runs, given by their settings.

        Raises:
            ProblemError: everything that is wrong with any of them, each mistake once.
        """
        files, seen = [], dict[tuple[str, str, str | None], tuple[Issue, int, int]]()
        for number, settings in enumerate(runs):
            try:
                files.append(self.problem_of(settings))
            except ProblemError as error:
                for each in error.issues:
                    placed = self._placed(each, settings, number)
                    mark = (placed.key, placed.message, placed.place)
                    first = seen.get(mark, (placed, number, 0))
                    seen[mark] = (first[0], first[1], first[2] + 1)
        if seen:
            told = [
                self._with_settings(each, runs[number] if count < len(runs) else {})
                for each, number, count in seen.values()
            ]
            raise ProblemError(in_reading_order(told))
        return files

    def _placed(self, each: Issue, settings: Mapping[str, Any], number: int) -> Issue:
        """A mistake of a problem at the key of the study that has made it."""
        if each.place not in (OVERRIDE, None):
            return each
        listed = f"runs.{number}" if isinstance(self.spec, ListSpec) else "vary"
        for keys, prefix in ((self.settings, None), (settings, listed), (self.spec.overrides, "overrides")):
            for key in keys:
                # A mistake is at the key that is set, below it, or at one above it that is not there else.
                if each.key == key or each.key.startswith(f"{key}.") or key.startswith(f"{each.key}."):
                    if prefix is None:
                        return each
                    return Issue(f"{prefix}.{each.key}", each.message, self._place(f"{prefix}.{key}"))
        return each

    @staticmethod
    def _with_settings(each: Issue, settings: Mapping[str, Any]) -> Issue:
        """A mistake of some runs, with the settings of the first of these unless its key tells."""
        if not settings or each.key.startswith(("vary.", "runs.")):
            return each
        given = ", ".join(f"{key} = {value}" for key, value in settings.items())
        return Issue(each.key, f"{each.message} (with {given})", each.place)

    def dump(self) -> str:
        """YAML with every value, defaults too."""
        yaml = YAML(typ="rt", pure=True)
        yaml.width, yaml.default_flow_style = 4096, None
        stream, content = io.StringIO(), self.spec.model_dump(mode="python")
        content["problem"] = content["problem"] if isinstance(content["problem"], str) else dict(content["problem"])
        content["overrides"] = {**content["overrides"], **self.settings}
        yaml.dump(_written(content), stream)
        return stream.getvalue()


def _listed(value: Any) -> Any:
    """A value with the arrays and the numbers of NumPy as those of Python."""
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(each) for each in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _written(value: Any) -> Any:
    """A value in the types of YAML; functions by their names."""
    if isinstance(value, Mapping):
        return {str(key): _written(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_written(each) for each in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def read_study(source: str | Path | Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> StudyFile:
    """Read and check a study.

    Args:
        source: a YAML file, or the same content as a mapping.
        settings: of the problem, for all runs, by dotted key.

    Raises:
        ProblemError: everything that is wrong with its own keys.
    """
    path: Path | None = None
    lines: dict[str, int] = {}
    issues: list[Issue] = []
    if isinstance(source, Mapping):
        data: Any = _listed(dict(source))
    elif isinstance(source, str | Path):
        path = Path(source)
        data = YamlText(path, lines, issues).read()
    else:
        raise ProblemError([Issue("", f"expected a path or a mapping, found {found(source)}")])
    where = StudyFile(StudySpec.model_construct(), path, lines)
    if not isinstance(data, dict):
        raise ProblemError(
            [*issues, where.issue("", f"expected a mapping with study, problem, kind, found {found(data)}")]
        )
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        near = suggest(kind, KINDS) if isinstance(kind, str) else ""
        said = f"expected one of {', '.join(KINDS)}" + (f", found {found(kind)}{near}" if "kind" in data else "")
        problem = "; this is a problem file, which `nhgd-pde solve` takes, and which a study names under problem"
        text = f"{'' if 'kind' in data else 'missing; '}{said}{problem if 'pde' in data else ''}"
        raise ProblemError([*issues, where.issue("kind", text)])
    try:
        spec = KINDS[kind].model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        issues += [where.issue(".".join(map(str, each["loc"])), each["msg"]) for each in details]
        raise ProblemError(issues) from None
    if issues:
        raise ProblemError(issues)
    return StudyFile(spec, path, lines, dict(settings or {}))
