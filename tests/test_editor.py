"""What editors get: a schema that names mistakes, its setting, and the reference page that is made from it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from nhgd_pde.cli import main
from nhgd_pde.output.editor_settings import SCHEMA, SETTINGS, OutputError, install
from nhgd_pde.problem_file.json_schema import json_schema, json_schema_text
from nhgd_pde.problem_file.reference import reference
from problems import BASE

ROOT = Path(__file__).parents[1]
VALIDATOR = Draft202012Validator(json_schema())


def mistakes(data: Any) -> list[tuple[str, str]]:
    found = VALIDATOR.iter_errors(data)
    return [(".".join(map(str, each.absolute_path)), each.message) for each in found]


def changed(key: str, value: Any) -> dict[str, Any]:
    data: Any = copy.deepcopy(BASE)
    *above, last = key.split(".")
    place = data
    for part in above:
        place = place[int(part) if part.isdigit() else part]
    place[last] = value
    return data


def test_every_copy_of_the_schema_is_up_to_date() -> None:
    for path in ("problems/schema.json", "nhgd_pde/problem_file/schema.json"):
        assert (ROOT / path).read_text(encoding="utf-8") == json_schema_text(), f"write it again: make schema ({path})"


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == reference(), "write it again: make schema"


def test_the_schema_is_one_that_validators_take() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted((ROOT / "problems").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_problems_are_valid(path: Path) -> None:
    assert mistakes(YAML(typ="safe", pure=True).load(path)) == []


@pytest.mark.parametrize(
    ("key", "value", "place", "words"),
    [
        ("pde.rhs", 1, "pde", "'rhs' was unexpected"),
        ("pde.kind", "laplace", "pde.kind", "'laplace' is not one of ['poisson', 'semilinear'"),
        ("pde.conductivity", True, "pde.conductivity", "True"),
        ("mesh.celsl", 4, "mesh", "'celsl' was unexpected"),
        ("mesh", {"file": "a.msh", "cells": 4}, "mesh", "'cells' was unexpected"),
        ("control.gian", 1, "control", "'gian' was unexpected"),
        ("control", [{"kind": "source", "gian": 1}], "control.0", "'gian' was unexpected"),
        ("control", [{"kind": "surce"}], "control.0.kind", "'surce' is not one of ['source'"),
        ("objective.1.wieght", 1, "objective.1", "'wieght' was unexpected"),
        ("constraints", [{"kind": "state", "uper": 1}], "constraints.0", "'uper' was unexpected"),
        ("outer", {"tol": 1}, "outer", "'tol' was unexpected"),
        ("pde.boundary.left", {"dirchlet": 1}, "pde.boundary.left", "'dirchlet' was unexpected"),
        ("bogus", 1, "", "'bogus' was unexpected"),
    ],
)
def test_one_mistake_is_named_once_with_its_place(key: str, value: Any, place: str, words: str) -> None:
    ((found, message),) = mistakes(changed(key, value))
    assert found == place and words in message


@pytest.mark.parametrize("value", ["mean", None, {"cvar": 0.9}, "worst_case"])
def test_words_beside_sections_are_valid(value: object) -> None:
    assert mistakes(changed("risk", value)) == []
    assert mistakes(changed("risk", "maen")) and mistakes(changed("risk", {"cvra": 0.9}))


def test_every_key_has_a_description() -> None:
    keys = [
        (name, key, value.get("description"))
        for name, section in json_schema()["$defs"].items()
        for key, value in section["properties"].items()
    ]
    assert len(keys) > 350
    assert [(name, key) for name, key, text in keys if not text] == []


def test_every_key_is_in_the_reference() -> None:
    rows = reference().splitlines()
    for name, section in json_schema()["$defs"].items():
        for key, value in section["properties"].items():
            start, end = f"| `{key}` | ", "| {} |".format(value["description"].replace("|", "\\|"))
            assert key == "kind" or any(row.startswith(start) and row.endswith(end) for row in rows), f"{name}.{key}"


def test_links_of_the_reference_lead_somewhere() -> None:
    page = reference()
    titles = re.findall(r"^#+ (.+)$", page, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    links = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert len(links) > 50 and links <= anchors
    assert len(titles) == len(set(titles))


# nhgd-pde schema --install


def test_install_into_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["schema", "--install"])
    assert done.exit_code == 0 and str(SETTINGS) in done.output
    assert (tmp_path / SCHEMA).read_text(encoding="utf-8") == json_schema_text()
    settings = json.loads((tmp_path / SETTINGS).read_text(encoding="utf-8"))
    assert settings == {"yaml.schemas": {f"./{SCHEMA.as_posix()}": ["/*.yaml", "/problems/*.yaml"]}}
    before = (tmp_path / SETTINGS).read_bytes()
    assert CliRunner().invoke(main, ["schema", "--install"]).exit_code == 0
    assert (tmp_path / SETTINGS).read_bytes() == before


def test_install_keeps_all_other_settings(tmp_path: Path) -> None:
    path = tmp_path / SETTINGS
    path.parent.mkdir()
    given = '{\n  "b": [1, {"c": null}],\n  "yaml.schemas": {"other.json": ["*.yml"]},\n  "ä": "é",\n  "a": 1.50\n}\n'
    path.write_text(given, encoding="utf-8")
    install(tmp_path, "{}", ["/runs/*.yaml"])
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    assert found.pop("yaml.schemas") == {"other.json": ["*.yml"], f"./{SCHEMA.as_posix()}": ["/runs/*.yaml"]}
    expected = json.loads(given)
    del expected["yaml.schemas"]
    assert found == expected and list(json.loads(text)) == list(json.loads(given))
    assert '\n  "b"' in text and "ä" in text
    install(tmp_path, "{}", ["/runs/*.yaml", "/more/*.yaml"])
    patterns = json.loads(path.read_text(encoding="utf-8"))["yaml.schemas"][f"./{SCHEMA.as_posix()}"]
    assert patterns == ["/runs/*.yaml", "/more/*.yaml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, // a comment\n}', "expected JSON without comments"),
        ('{"a": 1,}', "expected JSON without comments"),
        ("", "expected JSON without comments"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ("[1]", "expected a mapping, found list"),
        ('{"yaml.schemas": 3}', "expected a mapping under 'yaml.schemas', found int"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_settings_that_are_not_json_are_left_alone(text: str | bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / SETTINGS
    path.parent.mkdir()
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    with pytest.raises(OutputError, match=words) as caught:
        install(tmp_path, "{}", ["/*.yaml"])
    assert "nothing was changed" in str(caught.value)
    assert path.read_bytes() == content and not (tmp_path / SCHEMA).exists()


def test_options_of_schema_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["--install", "--markdown"], ["--files", "*.yaml"]):
        assert CliRunner().invoke(main, ["schema", *arguments]).exit_code == 2
    assert CliRunner().invoke(main, ["schema", "--markdown"]).output == reference()
    assert not list(tmp_path.iterdir())
