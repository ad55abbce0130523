"""`nhgd-pde new`: every starter is a problem that is checked without a complaint, and that solves."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pytest
from click.testing import CliRunner

import nhgd_pde as nhgd
from nhgd_pde.choice.vocabulary import vocabulary
from nhgd_pde.cli import main
from nhgd_pde.problem_file.catalogue import EQUATIONS
from nhgd_pde.problem_file.json_schema import json_schema_text
from nhgd_pde.problem_file.starter import TASKS, editor_line, kinds, starter, starter_files


def test_every_kind_of_equation_has_a_starter() -> None:
    assert {*kinds(), "python"} == set(EQUATIONS)


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_a_starter_solves_without_changes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.yaml"
    path.write_text(starter(kind), encoding="utf-8")
    coarse = {"mesh.cells": [8] * len(nhgd.load(path).file.spec.mesh.cells)}
    problem = nhgd.load(path, coarse)
    assert problem.file.spec.pde.kind == kind
    solution = nhgd.solve(problem)
    assert solution.status == "converged", solution.message
    assert solution.objective < float(solution.history[0]["objective"])


def test_every_key_of_the_equation_is_explained() -> None:
    for kind, section in kinds().items():
        lines = starter(kind).splitlines()
        for name in section.model_fields:
            if name not in ("kind", "boundary"):
                (line,) = [each for each in lines if each.startswith(f"  {name}:")]
                assert "  # " in line and len(line.partition("  # ")[2]) > 10, line


@pytest.mark.parametrize("name", TASKS)
def test_a_starter_of_a_task_is_checked_and_solves(name: str, tmp_path: Path) -> None:
    path = tmp_path / "my problem.yaml"
    done = CliRunner().invoke(main, ["new", name, "--output", str(path)])
    assert done.exit_code == 0 and f"nhgd-pde solve '{path}'" in done.output
    checked = CliRunner().invoke(main, ["check", str(path)])
    assert checked.exit_code == 0 and "warning" not in checked.output, checked.output
    problem = nhgd.load(path)
    solution = nhgd.solve(problem)
    assert solution.status == "converged", solution.message
    assert solution.objective < float(solution.history[0]["objective"])
    assert problem.name == f"my_{name}" and not solution.stats["warnings"]


@pytest.mark.parametrize("name", TASKS)
def test_starters_of_tasks_are_explained(name: str) -> None:
    lines = starter_files(name)[f"{name}.yaml"].splitlines()
    assert lines[0] == editor_line() and lines[1].startswith("# ")
    assert sum("  # " in line for line in lines) >= 4, "keys without a comment"


def test_the_inversion_finds_the_disc_in_its_data(tmp_path: Path) -> None:
    for name, text in starter_files("inversion").items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    solution = nhgd.solve(nhgd.load(tmp_path / "inversion.yaml"))
    inside, outside = solution.evaluate([[0.4, 0.5], [0.85, 0.15]], "control")
    # The sensors see the mean of a neighbourhood; exp(m) is 4 in the disc and 1 far from it.
    assert 3.0 < np.exp(inside) < 5.5 and 0.6 < np.exp(outside) < 1.4


def test_the_line_for_editors_names_the_schema_of_the_package() -> None:
    (uri,) = re.findall(r"\$schema=(file:\S+)$", editor_line())
    path = Path(url2pathname(urlparse(uri).path))
    assert path.read_text(encoding="utf-8") == json_schema_text()


@pytest.mark.parametrize("stem", ["a b", "ü", 'q"', "a: b", "a, {b", "#1", "x'y"])
def test_files_beside_a_starter_may_have_strange_names(stem: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.yaml"
    assert CliRunner().invoke(main, ["new", "inversion", "--output", str(path)]).exit_code == 0
    assert (tmp_path / f"{stem}_sensors.csv").exists()
    nhgd.load(path)


def test_new_writes_all_files_or_none(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("# my own\n")
    done = CliRunner().invoke(main, ["new", "python", "--output", str(tmp_path / "mine.yaml")])
    assert done.exit_code == 2 and "mine.py exists already" in done.output
    assert [each.name for each in tmp_path.iterdir()] == ["mine.py"]
    done = CliRunner().invoke(main, ["new", "python", "--output", str(tmp_path / "other.py")])
    assert done.exit_code == 2 and not (tmp_path / "other.py").exists()


def test_new_writes_a_file_and_never_overwrites_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    done = CliRunner().invoke(main, ["new", "poisson", "--output", str(path)])
    assert done.exit_code == 0 and path.read_text(encoding="utf-8") == starter("poisson")
    done = CliRunner().invoke(main, ["new", "poisson", "--output", str(path)])
    assert done.exit_code == 2 and "exists already" in done.output
    done = CliRunner().invoke(main, ["new", "poison", "--output", str(tmp_path / "x.yaml")])
    assert done.exit_code == 2 and "did you mean 'poisson'" in done.output
    assert not (tmp_path / "x.yaml").exists()


def test_kinds_are_listed_under_the_keys_of_the_file() -> None:
    listed = vocabulary()
    assert "file" in listed["meshes (mesh.kind, or mesh.file)"]
    assert set(listed["equations (pde.kind, or pde.python)"]) == {*kinds(), "python"}
