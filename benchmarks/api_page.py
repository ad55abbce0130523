"""The page docs/api.md, made from the docstrings of the public names: python -m benchmarks.api_page > docs/api.md."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import nhgd_pde
from nhgd_pde.problem_file.objects import OBJECTS

_HEAD = """\
# The Python API

<!-- Written by `python -m benchmarks.api_page > docs/api.md`; edit the docstrings in nhgd_pde instead. -->

Every public name of `import nhgd_pde as nhgd`, with its arguments, what it returns and the errors that it raises.
[python.md](python.md) shows with examples how they are used. Letters in shapes: p control unknowns, N coefficients of
the state (n of them unknown), S scenarios, dim coordinates. A coefficient of a P1 field is the value at its node.
Lengths are in the unit of the mesh.
"""
_GROUPS = {
    "Problems and answers": ("load", "Problem", "solve", "Solution", "verify", "Verification"),
    "Posteriors": ("Posterior", "PredictedInterval", "Chain", "place_sensors", "Placement"),
    "The error that the mesh leaves": ("estimate_error", "ErrorEstimate"),
    "Studies": ("study", "Study"),
    "Derivatives for other optimisers and for networks": ("reduced", "ReducedObjective", "as_torch", "TorchFunctions"),
    "Bilevel problems without an equation": ("solve_bilevel", "BilevelOptions", "BilevelSolution", "LossProblem"),
    "Errors": ("ProblemError", "OutputError", "ResultsLostError", "StateUnsolvedError", "NoEstimateError"),
}
# Names whose members are an interface for optimisers, which docs/architecture.md describes.
_WITHOUT_MEMBERS = {"LossProblem"}
_SECTIONS = ("Args", "Attributes", "Returns", "Raises")
_MOST = 110


def api_page() -> str:
    """The text of the page."""
    parts = [_HEAD]
    for title, names in _GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names:
            value = getattr(nhgd_pde, name)
            parts += _class(name, value) if inspect.isclass(value) else _function(name, value, "###")
    return "\n".join([*parts, *_objects()])


def grouped() -> set[str]:
    """The public names that have a place on the page."""
    return {name for names in _GROUPS.values() for name in names}


def members(cls: type) -> dict[str, Any]:
    """The public methods and properties of a class, its own and those of its bases in this package, by name."""
    found = {}
    for owner in reversed(cls.__mro__):
        if owner.__module__.startswith("nhgd_pde"):
            for name, value in vars(owner).items():
                if not name.startswith("_") and (callable(value) or hasattr(value, "__get__")):
                    found[name] = value
    return {} if cls.__name__ in _WITHOUT_MEMBERS else found


def attributes(cls: type) -> dict[str, str]:
    """The attributes that the docstrings of a class and of its bases describe, by name."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if owner.__module__.startswith("nhgd_pde") and owner.__doc__:
            found |= sections(inspect.cleandoc(owner.__doc__)).get("Attributes", {})
    return found


def sections(text: str) -> dict[str, dict[str, str]]:
    """The sections of a docstring: names and what is said of each; under "" the text before, under Returns the text."""
    found: dict[str, dict[str, str]] = {"": {"": ""}}
    section, name = "", ""
    for line in text.splitlines():
        title = line.rstrip(":")
        if line.endswith(":") and title in _SECTIONS:
            section, name = title, ""
            found[section] = {}
            continue
        entry = re.match(r"    (\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)", line) if section not in ("", "Returns") else None
        if entry:
            name, line = entry[1], entry[2]
        elif section and line.strip() and not line.startswith(" "):
            section, name = "", ""
        found[section][name] = found[section].get(name, "") + (line if not section else line.strip()) + "\n"
    return {title: {key: each.strip("\n") for key, each in entries.items()} for title, entries in found.items()}


def documentation(value: Any) -> str:
    """The docstring of a function, a property, a method or a class."""
    held = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    return inspect.getdoc(held) or ""


def _function(title: str, value: Callable[..., Any], heading: str) -> list[str]:
    return [f"{heading} {title}\n", _call(title, value), *_described(sections(documentation(value)))]


def _class(name: str, cls: type) -> list[str]:
    told = sections(inspect.cleandoc(cls.__doc__ or ""))
    known = attributes(cls)
    if known:
        told["Attributes"] = known
    # How an instance is made is told where a user makes it: answers come from functions.
    made = "Args" in told or name in ("BilevelOptions", "LossProblem")
    parts = [f"### {name}\n", *([_call(name, cls)] if made else []), *_described(told)]
    methods = []
    properties = []
    for each, value in members(cls).items():
        if each in known:
            continue
        if isinstance(value, staticmethod | classmethod) or inspect.isfunction(value):
            held = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            bound = isinstance(value, staticmethod)
            methods += [f"#### {name}.{each}\n", _call(f"{name}.{each}", held, skip=0 if bound else 1)]
            methods += _described(sections(documentation(value)))
        else:
            properties.append(_item(each, documentation(value)))
    if properties:
        parts.append("Properties:\n\n" + "\n".join(properties) + "\n")
    return parts + methods


def _call(title: str, value: Callable[..., Any], skip: int = 0) -> str:
    """A call with all parameters and their defaults, as a block of code."""
    given = list(inspect.signature(value).parameters.values())[skip:]
    words = []
    for each in given:
        if each.kind is each.KEYWORD_ONLY and "*" not in words and not any(word.startswith("*") for word in words):
            words.append("*")
        star = {each.VAR_KEYWORD: "**", each.VAR_POSITIONAL: "*"}.get(each.kind, "")
        words.append(f"{star}{each.name}" + ("" if each.default is each.empty else f"={_default(each.default)}"))
    line = f"{title}({', '.join(words)})"
    if len(line) > _MOST:
        line = f"{title}(\n" + "".join(f"    {word},\n" for word in words) + ")"
    return f"```\n{line}\n```\n"


def _default(value: Any) -> str:
    return "..." if callable(value) or type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS" else repr(value)


def _described(told: dict[str, dict[str, str]]) -> Iterator[str]:
    yield _plain(told[""][""].strip()) + "\n"
    for title, words in (
        ("Args", "Arguments"),
        ("Attributes", "Attributes"),
        ("Returns", "Returns"),
        ("Raises", "Raises"),
    ):
        if title in told:
            entries = told[title]
            if title == "Returns":
                yield f"Returns: {_plain(_line(' '.join(entries.values())))}\n"
            else:
                yield f"{words}:\n\n" + "\n".join(_item(name, text) for name, text in entries.items()) + "\n"


def _item(name: str, text: str) -> str:
    names = ", ".join(f"`{each}`" for each in name.split(", "))
    return f"- {names}: {_plain(_line(text))}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Text in which signs of HTML are signs, except within code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(each if each.startswith("`") else re.sub(r"<|(?<!\*)\*(?!\*)", r"\\\g<0>", each) for each in parts)


def _objects() -> Iterator[str]:
    yield (
        "## Sections of a problem as objects\n\n"
        "Each class makes a section of a problem file: `nhgd.Poisson(source=1)` is the mapping\n"
        "`{kind: poisson, source: 1}`. The table has its keyword arguments, those without a default in bold.\n"
        "`help(nhgd.Poisson)` and [reference.md](reference.md) describe each. Values are checked where the problem is\n"
        "made, all mistakes together.\n\n"
        "| class | kind | keyword arguments |\n|---|---|---|"
    )
    for name, (kind, _) in OBJECTS.items():
        given = inspect.signature(getattr(nhgd_pde, name)).parameters.values()
        keys = ", ".join(f"**`{key.name}`**" if key.default is key.empty else f"`{key.name}`" for key in given)
        yield f"| `{name}` | {f'`{kind}`' if kind else ''} | {keys} |"
    yield ""


if __name__ == "__main__":
    print(api_page(), end="")
