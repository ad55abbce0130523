"""Reads the YAML text of a problem file into plain values with the line of every key, and describes mistakes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from nhgd_pde.problem_file.errors import Issue, ProblemError
from nhgd_pde.problem_file.fields import found

# A problem file is written by hand. These limits refuse other files, which would take minutes to parse.
MAX_BYTES = 1_000_000
MAX_NODES = 20_000
_VERSION = "1.2"

_TAG = "tag:yaml.org,2002:"


def _too_many() -> str:
    return f"expected a problem file of at most {MAX_NODES:,} values, found more"


class _TooManyError(Exception):
    """The text has more nodes than a problem file may have; `mark` is the place of the first of these."""

    def __init__(self, mark: Any) -> None:
        super().__init__()
        self.mark = mark


class _BoundedComposer(Composer):
    """Makes the nodes of a YAML text, and stops if there are too many: a thousand nodes take about 40 ms."""

    written = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.written += 1
        if self.written > MAX_NODES:
            raise _TooManyError(self.parser.peek_event().start_mark)
        return super().compose_node(parent, index)


class YamlText:
    """The plain values of a YAML text, with the line of each key; mistakes are collected in `issues`."""

    def __init__(self, path: Path | None, lines: dict[str, int], issues: list[Issue]) -> None:
        self.path = path
        self.lines = lines
        self.issues = issues
        self.nodes = 0
        self.yaml = YAML(typ="safe", pure=True)
        self.yaml.Composer = _BoundedComposer

    def read(self) -> Any:
        assert self.path is not None
        place = str(self.path)
        try:
            with self.path.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
            text = content.decode("utf-8-sig")
        except FileNotFoundError:
            raise ProblemError([Issue("", "no such file", place)]) from None
        except IsADirectoryError:
            raise ProblemError([Issue("", "expected a file, found a folder", place)]) from None
        except OSError as error:
            raise ProblemError([Issue("", f"cannot be read: {error.strerror}", place)]) from None
        except UnicodeDecodeError:
            raise ProblemError([Issue("", "cannot be read: not UTF-8 text", place)]) from None
        except ValueError as error:
            raise ProblemError([Issue("", f"cannot be read: {error}", repr(place))]) from None
        if len(content) > MAX_BYTES:
            message = f"expected a problem file of at most {MAX_BYTES:,} bytes, found more"
            raise ProblemError([Issue("", message, place)])
        return self.parse(text)

    def parse(self, text: str) -> Any:
        self._check_version(text)
        try:
            # The warnings of ruamel.yaml are about YAML 1.1, or about mistakes that are found below.
            with warnings.catch_warnings(action="ignore"):
                root = self.yaml.compose(text)
            return None if root is None else self._value(root, "")
        except _TooManyError as error:
            raise ProblemError([self._issue("", _too_many(), error.mark)]) from None
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = " ".join(str(error.problem or error.context).split())
            raise ProblemError([self._issue("", f"not YAML: {reason}", mark)]) from None
        except YAMLError as error:
            reason = str(error).splitlines()[0]
            raise ProblemError([self._issue("", f"not YAML: {reason}", None)]) from None
        except RecursionError:
            raise ProblemError([self._issue("", "nested too deeply", None)]) from None
        except ProblemError:
            raise
        except Exception as error:
            # The parser may raise any exception for an unexpected text: each means a mistake in the text.
            reason = " ".join(f"{type(error).__name__} {error}".split())
            raise ProblemError([self._issue("", f"not YAML: {reason}", None)]) from None

    def _check_version(self, text: str) -> None:
        """Refuse versions of YAML in which words and numbers mean something else, or that do not exist."""
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith("%YAML"):
                found = line.partition("#")[0].split()[1:]
                if found != [_VERSION]:
                    place = None if self.path is None else f"{self.path}:{number}"
                    message = f"expected YAML {_VERSION}, found {' '.join(found)[:60] or 'none'}"
                    raise ProblemError([Issue("", message, place)])
            elif line.strip() and not line.startswith(("%", "#")):
                return

    def _issue(self, key: str, message: str, mark: Any) -> Issue:
        place = None if self.path is None else f"{self.path}:{mark.line + 1 if mark else 1}"
        return Issue(key, message, place)

    def _value(self, node: Node, key: str) -> Any:
        # An alias stands for the node that it names, so that a short text can stand for a huge or an endless value.
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ProblemError([self._issue("", _too_many(), node.start_mark)])
        if isinstance(node, MappingNode):
            return self._mapping(node, key)
        if isinstance(node, SequenceNode):
            values: list[Any] = []
            for index, child in enumerate(node.value):
                below = f"{key}.{index}" if key else str(index)
                self.lines.setdefault(below, child.start_mark.line + 1)
                values.append(self._value(child, below))
            return values
        assert isinstance(node, ScalarNode)
        return self._scalar(node, key)

    def _mapping(self, node: MappingNode, key: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name_node, child in node.value:
            if not isinstance(name_node, ScalarNode):
                self.issues.append(self._issue(key, "expected a name as key", name_node.start_mark))
                continue
            name = str(name_node.value)
            below = f"{key}.{name}" if key else name
            if name in values:
                first = self.lines[below]
                message = f"duplicate key {name!r}, first given in line {first}"
                self.issues.append(self._issue(below, message, name_node.start_mark))
                continue
            self.lines.setdefault(below, name_node.start_mark.line + 1)
            values[name] = self._value(child, below)
        return values

    def _scalar(self, node: ScalarNode, key: str) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        constructor = self.yaml.constructor
        try:
            match kind:
                case "str":
                    return str(node.value)
                case "null":
                    return None
                case "bool":
                    return bool(constructor.construct_yaml_bool(node))
                case "int":
                    return int(constructor.construct_yaml_int(node))
                case "float":
                    return float(constructor.construct_yaml_float(node))
        except (ValueError, KeyError, IndexError, OverflowError):
            self.issues.append(self._issue(key, f"cannot read {found(node.value)} as {kind}", node.start_mark))
            return None
        if kind == "timestamp":
            return str(node.value)
        message = f"the YAML tag {str(node.tag)!r} is not allowed"
        self.issues.append(self._issue(key, message, node.start_mark))
        return None
