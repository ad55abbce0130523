"""`nhgd-pde new`: a starter file of every kind is a problem that solves."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import nhgd_pde as nhgd
from nhgd_pde.choice.vocabulary import vocabulary
from nhgd_pde.cli import main
from nhgd_pde.problem_file.catalogue import EQUATIONS
from nhgd_pde.problem_file.starter import kinds, starter


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
