"""What is handed over: the wheel with its data, the citation, and the pages that name files and commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import nhgd_pde as nhgd
from nhgd_pde.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = ["coming_from.md", "restart.md", "several_processes.md"]


@pytest.mark.slow
def test_the_wheel_has_all_files_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "nhgd_pde", source / "nhgd_pde", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", str(source), *options]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl"), "no compiler is needed"
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("nhgd_pde/")}
        archive.extractall(tmp_path / "installed")
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "nhgd_pde").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == there
    assert {"nhgd_pde/py.typed", "nhgd_pde/problem_file/schema.json"} <= packed
    assert "nhgd_pde/problem_file/starters/python.py.txt" in packed
    # The starters are read from the wheel that was installed.
    code = "import nhgd_pde.cli, sys; print(nhgd_pde.__file__); nhgd_pde.cli.main(['new', 'inversion'])"
    installed = tmp_path / "installed"
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, env=environment, check=True, capture_output=True, text=True
    )
    assert str(installed) in done.stdout.splitlines()[0]
    assert (installed / "inversion_sensors.csv").exists()


def test_versions_and_authors_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = YAML(typ="safe", pure=True).load(ROOT / "CITATION.cff")
    assert str(citation["version"]) == project["version"] and citation["license"] == project["license"]
    assert [each["name"] for each in citation["authors"]] == [each["name"] for each in project["authors"]]
    assert citation["title"] == project["name"] and "2602.10905" in citation["references"][0]["url"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", changes, re.M)
    assert versions[0] == "Unreleased" and project["version"] in versions


def test_the_image_is_made_of_files_that_are_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)$", text, re.M):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    extras = re.findall(r"'\.\[(.+?)\]'", text)[0].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES)
def test_links_and_commands_of_the_pages(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / "docs" / link).exists(), link
    for command in re.findall(r"nhgd-pde ([a-z]+)", text):
        assert command in COMMANDS, command
    for name in re.findall(r"problems/(\w+\.yaml)", text):
        assert (ROOT / "problems" / name).exists(), name


def test_the_problem_of_the_page_for_others_solves() -> None:
    text = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    data = YAML(typ="safe", pure=True).load(example)
    solution = nhgd.solve(nhgd.load(data, {"mesh.cells": [8, 8]}))
    assert solution.status == "converged"


@pytest.mark.parametrize("page", ["coming_from.md"])
def test_fragments_of_the_page_are_valid(page: str) -> None:
    """Every cell on our side that is a mapping of YAML is taken by the schema at its key."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    cells = re.findall(r"`((?:mesh|outer|constraints|element|parameters): [^`]+)`", text)
    assert len(cells) > 8
    base = YAML(typ="safe", pure=True).load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    from nhgd_pde.problem_file.loading import read_problem

    for cell in cells:
        if "..." not in cell:
            read_problem({**base, **YAML(typ="safe", pure=True).load(cell)})
