"""The page docs/reference.md: every key of a problem file with type, default and description, from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .json_schema import json_schema

_HEAD = """\
# Reference: every key of a problem file

<!-- Written by `nhgd-pde schema --markdown`; edit the descriptions in nhgd_pde/problem_file instead. -->

This page is made from the schema that files are checked against. [problem_file.md](problem_file.md) explains the keys
with examples. An *expression* is a number, or a text such as `"sin(pi*x)"`. Keys without a default must be given.
"""
_TOP = {
    "ProblemSpec": ("A problem with an equation", "The keys of a file with `pde`."),
    "TaskSpec": ("A task of machine learning", "The keys of a file with `task` in place of an equation."),
}


def reference() -> str:
    """The text of the page."""
    sections = json_schema()["$defs"]
    titles: dict[str, str] = {}
    for top in _TOP:
        titles |= {name: title for name, title in _titles(sections[top], "", sections) if name not in titles}
    parts, written = [_HEAD], set()
    for top, (title, text) in _TOP.items():
        parts.append(f"## {title}\n\n{text}\n\n{_table(sections[top], titles)}")
        for name, _ in _titles(sections[top], "", sections):
            if name not in written:
                written.add(name)
                section = sections[name]
                parts.append(f"### {titles[name]}\n\n{section['description']}\n\n{_table(section, titles)}")
    return "\n".join(parts)


def _titles(section: dict[str, Any], path: str, sections: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The sections that a section names, and those below these, in the order of the file, with their titles."""
    for key, value in section["properties"].items():
        place = f"{path}{key}" + (".NAME" if isinstance(value.get("additionalProperties"), dict) else "")
        names = list(dict.fromkeys(_references(value)))
        for name in names:
            properties = sections[name]["properties"]
            kind = properties.get("kind", {}).get("const")
            first = next(iter(properties))
            which = f" with kind: {kind}" if kind else f" with {first}" if len(names) > 1 else ""
            yield name, f"`{place}`{which}"
            yield from _titles(sections[name], f"{place}.", sections)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for key, value in schema.items():
            if key != "properties":
                yield from _references(value)


def _link(name: str, titles: dict[str, str]) -> str:
    """A link to a section; the anchor is made of the title as GitHub makes it."""
    title = titles[name].replace("`", "")
    anchor = "".join(each for each in title.lower() if each.isalnum() or each in " -_").replace(" ", "-")
    return f"[{title.rpartition(' ')[2]}](#{anchor})"


def _table(section: dict[str, Any], titles: dict[str, str]) -> str:
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for key, value in section["properties"].items():
        if key == "kind" and "const" in value:
            continue
        text = value.get("description", "").replace("|", "\\|")
        rows.append(f"| `{key}` | {_type(value, titles)} | {_default(key, value, section)} | {text} |")
    return "\n".join(rows) + "\n" if len(rows) > 2 else "No keys but `kind`.\n"


def _default(key: str, value: dict[str, Any], section: dict[str, Any]) -> str:
    if key in section.get("required", ()):
        return "required"
    if "default" not in value:
        return "`{}`" if value.get("type") == "object" else "see there"
    return f"`{json.dumps(value['default'], ensure_ascii=False)}`"


def _type(schema: Any, titles: dict[str, str]) -> str:
    """The values that a schema allows, in words."""
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2], titles)
    if "allOf" in schema:
        return "one of " + ", ".join(_type(each["then"], titles) for each in schema["allOf"])
    if "then" in schema:
        several, single = schema["then"], schema["else"]
        if several.get("items") == single:
            return f"{_type(single, titles)}; or a list of them"
        return f"{_type(several, titles)} or {_type(single, titles)}"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(each, titles) for each in schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        words = schema["enum"] if "enum" in schema else [schema["const"]]
        return ", ".join(f"`{word if isinstance(word, str) else json.dumps(word)}`" for word in words)
    return _plain(schema, titles)


def _plain(schema: Any, titles: dict[str, str]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return "expression or `null`" if "null" in kind else "expression"
    if kind in ("integer", "number"):
        bounds = (("at least", "minimum"), ("above", "exclusiveMinimum"), ("below", "exclusiveMaximum"))
        limits = [f"{word} {schema[name]:g}" for word, name in bounds if name in schema]
        return " ".join(["whole number" if kind == "integer" else "number", " and ".join(limits)]).strip()
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        entries = ", ".join(dict.fromkeys(_type(each, titles) for each in items))
        count = f" of {len(items)}" if "prefixItems" in schema else ""
        return (
            f"list{count}: {entries}" if not entries.startswith("one of ") else f"list of {entries[len('one of ') :]}"
        )
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"mapping of names to {_type(inner, titles)}" if isinstance(inner, dict) else "mapping"
    return {"null": "`null`", "boolean": "`true`, `false`", "string": "text"}.get(kind, "any value")
