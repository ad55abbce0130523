"""The section `placement` of a problem file and `nhgd-pde place`: what is written and said, and mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from inverse_problems import conductivity_inversion, grid_points, sensor_file, source_inversion
from ruamel.yaml import YAML

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.inference.posterior import Posterior, PosteriorOptions
from nhgd_pde.output.fields import read_vtu

ROOT = Path(__file__).parents[1]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def written(sections: dict[str, Any], folder: Path) -> Path:
    path = folder / "problem.yaml"
    with open(path, "w", encoding="utf-8") as file:
        YAML().dump(sections, file)
    return path


def sections_with(folder: Path, placement: dict[str, Any]) -> dict[str, Any]:
    there = np.array([[0.4, 0.3]])
    return source_inversion(sensor_file(folder, there, np.zeros(1)), 6, placement=placement)


def test_place_writes_sensors_that_a_problem_file_takes(tmp_path: Path) -> None:
    file = written(sections_with(tmp_path, {"grid": [4, 3], "count": 2}), tmp_path)
    folder = tmp_path / "answer"
    result = invoke("place", file, "--output", folder)
    assert result.exit_code == 0, result.output
    assert "sensors: 2 of 12 candidates by criterion D, beside 1 sensor kept" in result.output
    assert "no other choice has more than" in result.output
    numbers = json.loads((folder / "placement.json").read_text())
    placement = nhgd.place_sensors(nhgd.load(file))
    assert numbers["value"] == pytest.approx(placement.value)
    assert numbers["bound"] >= numbers["value"]
    assert numbers["gap"] == pytest.approx(1.0 - numbers["value"] / numbers["bound"])
    assert [each["at"] for each in numbers["chosen"]] == placement.points.tolist()
    assert len(numbers["weights"]) == len(numbers["alone"]) == 12
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    _, fields = read_vtu(folder / "placement.vtu")
    assert set(fields.point) == {"prior_std", "before_std", "std"}
    assert (fields.point["std"] < fields.point["before_std"]).all()
    assert (fields.point["before_std"] < fields.point["prior_std"]).all()
    points, fields = read_vtu(folder / "candidates.vtu")
    assert np.flatnonzero(fields.point["chosen"]).tolist() == placement.chosen.tolist()
    assert np.allclose(points.points[:, :2], placement.candidates)
    # The file of sensors has the values of the computed state, and the gain that was promised.
    sections = sections_with(tmp_path, {"grid": 4, "count": 2})
    tracking = [{"kind": "tracking", "at": str(tmp_path / "sensors.csv")}]
    gains = []
    for more in ([], [{"kind": "tracking", "at": str(folder / "sensors.csv")}]):
        pde = nhgd.load({**sections, "placement": None, "objective": [*tracking, *more]}).pde
        posterior = Posterior(pde, pde.start()[1], PosteriorOptions(threshold=1e-14))
        gains.append(posterior.information_gain)
    assert gains[1] - gains[0] == pytest.approx(placement.value, rel=1e-6)
    measured, expected = pde.sensors[1].measured[0], placement.expected[placement.chosen, 0]
    assert measured == pytest.approx(expected, rel=1e-12)
    # Again into the same folder, by another criterion, but not into one with other files.
    assert invoke("place", file, "--output", folder, "--set", "placement.criterion=A").exit_code == 0
    assert json.loads((folder / "placement.json").read_text())["criterion"] == "A"
    refused = invoke("place", file, "--output", tmp_path)
    assert refused.exit_code == 2
    assert "expected an empty folder or one with placement.json" in refused.output
    assert not (tmp_path / "placement.json").exists()


def test_the_control_of_a_run_is_taken(tmp_path: Path) -> None:
    where = grid_points(3)
    sections = conductivity_inversion(sensor_file(tmp_path, where, where[:, 1] + 0.05), 5)
    places = sensor_file(tmp_path, grid_points(3)[:5], np.zeros(5), "places.csv")
    file = written({**sections, "placement": {"at": places, "penalty": 0.05}}, tmp_path)
    assert invoke("solve", file, "--output", tmp_path / "run", "--no-figure").exit_code == 0
    result = invoke("place", file, "--output", tmp_path / "one", "--run", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "less the penalties" in result.output
    assert invoke("place", file, "--output", tmp_path / "two").exit_code == 0
    one, two = (json.loads((tmp_path / name / "placement.json").read_text()) for name in ("one", "two"))
    assert one["value"] == pytest.approx(two["value"], rel=1e-6)
    # No sensor is worth so much.
    none = invoke(
        "place", file, "--output", tmp_path / "none", "--run", tmp_path / "run", "--set", "placement.penalty=1e3"
    )
    assert none.exit_code == 0, none.output
    empty = json.loads((tmp_path / "none" / "placement.json").read_text())
    assert (empty["chosen"], empty["bound"], empty["gap"]) == ([], 0.0, 0.0)
    stopped = invoke("place", file, "--output", tmp_path / "three", "--set", "outer.iterations=1")
    assert stopped.exit_code == 2
    assert "expected a run that has converged" in stopped.output
    assert not (tmp_path / "three").exists()


def test_components_of_vectors_numbers_and_intervals(tmp_path: Path) -> None:
    # A traction of a cantilever from displacements: the candidates measure both components, or one.
    file = tmp_path / "displacements.csv"
    file.write_text("0.7,0.5,0,0\n")
    sections: dict[str, Any] = {
        "name": "cantilever",
        "mesh": {"kind": "rectangle", "size": [2, 1], "cells": [6, 3]},
        "pde": {"kind": "elasticity", "young": 1, "poisson_ratio": 0.3, "boundary": {"left": {"dirichlet": [0, 0]}}},
        "control": {"kind": "neumann", "on": "right", "name": "g"},
        "objective": [{"kind": "tracking", "at": str(file)}],
        "inference": {"noise": 0.1, "prior": {"length": 0.5}},
        "placement": {"grid": [4, 2], "count": 2},
    }
    problem = nhgd.load(sections)
    both, one = nhgd.place_sensors(problem), nhgd.place_sensors(problem, component=1)
    assert both.offered.values == 2
    assert both.value > one.value
    result = invoke("place", written(sections, tmp_path), "--output", tmp_path / "vector")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "vector" / "sensors.csv").read_text().splitlines()
    assert lines[1] == "x,y,value_0,value_1"
    assert len(lines) == 4
    # A control of numbers has no field; an interval has candidates on a line.
    rod = {
        "name": "rod",
        "mesh": {"kind": "interval", "cells": 8},
        "pde": {"kind": "poisson", "source": "a*x", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "parameter", "name": "a"},
        "objective": [{"kind": "tracking", "at": sensor_file(tmp_path, np.array([[0.5]]), np.zeros(1), "rod.csv")}],
        "inference": {"noise": 0.1, "prior": {"std": 2}},
        "placement": {"grid": 5, "count": 1, "criterion": "A"},
    }
    result = invoke("place", written(rod, tmp_path), "--output", tmp_path / "rod")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "rod" / "placement.vtu").exists()
    # The best place of one sensor is where x - x^3 is largest among the candidates, as u = a (x - x^3) / 6.
    (chosen,) = json.loads((tmp_path / "rod" / "placement.json").read_text())["chosen"]
    assert chosen["at"] == [0.5]


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"grid": [3, 3], "count": 10}, "placement.count: expected at most 9, the number of candidates; found 10"),
        ({"grid": [3, 3], "count": 0}, "placement.count: expected a whole number of at least 1"),
        ({"grid": [3], "count": 1}, "placement.grid: expected 2 numbers, one an axis, found 1"),
        ({"count": 1}, "placement.grid: missing; expected a grid of candidates, or their file under at"),
        ({"grid": [3, 3], "at": "a.csv", "count": 1}, "placement: expected one of at, grid; found both"),
        ({"at": "none.csv", "count": 1}, "placement.at: expected a file of candidates, found nothing at 'none.csv'"),
        ({"at": "outside.csv", "count": 1}, "outside.csv: line 3: the point (2, 0.5) is outside the mesh"),
        ({"at": "timed.csv", "count": 1}, "timed.csv: expected no column t: every candidate measures at the times"),
        ({"at": "short.csv", "count": 1}, "short.csv: expected at least 2 columns (x, y), found 1"),
        ({"at": "named.csv", "count": 1}, "named.csv: expected first columns named x, y; found a, b"),
        ({"grid": [3, 3], "count": 1, "times": [0.1]}, "placement.times: expected none in a steady problem"),
        ({"grid": [3, None], "count": 1}, "placement.grid: expected numbers, found [3, None]"),
        ({"grid": [1000, 1000], "count": 1}, "placement.grid: expected at most 100,000 points, found 1,000,000"),
    ],
)
def test_mistakes_are_found_without_a_choice(
    placement: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside.csv").write_text("# places\n0.5,0.5\n2,0.5\n")
    (tmp_path / "timed.csv").write_text("x,y,t\n0.5,0.5,0.1\n")
    (tmp_path / "short.csv").write_text("0.5\n")
    (tmp_path / "named.csv").write_text("a,b\n0.5,0.5\n")
    with pytest.raises(nhgd.ProblemError) as caught:
        nhgd.load(sections_with(tmp_path, placement))
    assert message in str(caught.value)


def test_other_sections_that_are_needed(tmp_path: Path) -> None:
    sections = sections_with(tmp_path, {"grid": [3, 3], "count": 1})
    two = [*sections["objective"], *sections["objective"]]
    with pytest.raises(nhgd.ProblemError, match=r"placement\.noise: missing; expected the noise of the new sensors"):
        nhgd.load({**sections, "objective": two, "inference": {**sections["inference"], "noise": [0.1, 0.2]}})
    del sections["inference"]
    with pytest.raises(nhgd.ProblemError, match="placement: expected a section inference beside it"):
        nhgd.load(sections)
    del sections["placement"]
    sections["objective"].append({"kind": "regularisation", "weight": 1})
    with pytest.raises(nhgd.ProblemError, match="placement: expected a section inference beside it"):
        nhgd.place_sensors(nhgd.load(sections), grid_points(2), 1)
    result = invoke("place", written(sections, tmp_path), "--output", tmp_path / "none")
    assert result.exit_code == 2
    assert "placement: missing; expected candidate sensors" in result.output


def test_the_grid_has_no_points_outside_the_mesh(tmp_path: Path) -> None:
    sections = sections_with(tmp_path, {"grid": [6, 6], "count": 3})
    sections["mesh"] = {"kind": "l_shape", "refine": 2}
    file = sensor_file(tmp_path, np.array([[-0.4, 0.3]]), np.zeros(1))
    sections["objective"] = [{"kind": "tracking", "at": file}]
    placement = nhgd.place_sensors(nhgd.load(sections))
    assert len(placement.candidates) == 27


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "sensor_placement.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(text.replace('.yaml")', '.yaml", {"mesh.cells": [8, 8]})'), "docs/sensor_placement.md", "exec"), names)
    assert len(names["placement"].chosen) == 8
    assert names["better"].value > names["placement"].value
    assert 0.0 < names["shares"].value < 1.0
