"""The page docs/api.md is that of the docstrings, and every public name of the package has one."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

import nhgd_pde as nhgd
from benchmarks.api_page import api_page, attributes, documentation, grouped, members, sections
from nhgd_pde.problem_file.objects import OBJECTS

ROOT = Path(__file__).parents[1]
NAMES = sorted(set(nhgd.__all__) - {"__version__"})
CLASSES = [name for name in NAMES if inspect.isclass(getattr(nhgd, name))]


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == api_page(), "write it again: make schema"


def test_every_public_name_is_on_the_page() -> None:
    assert grouped() == set(NAMES)
    page = api_page()
    for name in NAMES:
        assert f"### {name}\n" in page
    for name in OBJECTS:
        assert f"| `{name}` |" in page


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_described(name: str) -> None:
    value = getattr(nhgd, name)
    told = sections(documentation(value))
    assert told[""][""].strip()
    if inspect.isfunction(value):
        described = {each for entry in told["Args"] for each in entry.split(", ")}
        assert described == set(inspect.signature(value).parameters)


@pytest.mark.parametrize("name", CLASSES)
def test_members_are_described(name: str) -> None:
    cls = getattr(nhgd, name)
    described = {each for entry in attributes(cls) for each in entry.split(", ")}
    if dataclasses.is_dataclass(cls):
        assert {field.name for field in dataclasses.fields(cls)} <= described
    for member, value in members(cls).items():
        if member in described:
            continue
        told = sections(documentation(value))
        assert told[""][""].strip(), f"{name}.{member} has no docstring"
        held = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if "Args" in told:
            given = set(inspect.signature(held).parameters) - {"self", "cls"}
            assert {each for entry in told["Args"] for each in entry.split(", ")} == given, f"{name}.{member}"


def test_sections_of_a_docstring_are_found() -> None:
    text = (
        "Adds.\n\nSlowly: always.\n\nArgs:\n    a, b: two\n        numbers: real.\n    c: more.\n\nReturns:\n    A sum."
    )
    found = sections(text)
    assert found[""][""].strip() == "Adds.\n\nSlowly: always."
    assert found["Args"] == {"a, b": "two\nnumbers: real.", "c": "more."}
    assert found["Returns"] == {"": "A sum."}
