"""The section `inference` of a problem file: what a run writes and says, and mistakes."""

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
from nhgd_pde.output.fields import read_vtu

ROOT = Path(__file__).parents[1]


def written(sections: dict[str, Any], folder: Path) -> Path:
    path = folder / "problem.yaml"
    with open(path, "w", encoding="utf-8") as file:
        YAML().dump(sections, file)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def data(folder: Path) -> str:
    where = grid_points(3)
    return sensor_file(folder, where, 0.02 * np.sin(3.0 * where[:, 0]))


def test_solve_writes_the_posterior_and_says_what_was_learned(tmp_path: Path) -> None:
    predict = [{"at": [0.5, 0.5]}, {"integral": 1, "of": "control", "name": "total source"}]
    sections = source_inversion(data(tmp_path), 6, inference={"predict": predict, "samples": 2, "threshold": 0.01})
    folder = tmp_path / "run"
    result = invoke("solve", written(sections, tmp_path), "--output", folder)
    assert result.exit_code == 0, result.output
    assert "posterior: the data inform" in result.output
    assert "total source = " in result.output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["discretisation_error"] is None
    assert "the control has a prior" in summary["discretisation_missing"]
    numbers = json.loads((folder / "posterior" / "posterior.json").read_text())
    solution = nhgd.Solution.load(folder)
    posterior = solution.posterior()
    assert numbers["eigenvalues"] == pytest.approx(posterior.eigenvalues.tolist())
    assert numbers["information_gain"] == pytest.approx(posterior.information_gain)
    assert [each["name"] for each in numbers["intervals"]] == ["state at (0.5, 0.5)", "total source"]
    assert solution.terms["prior"] + solution.terms["tracking"] == pytest.approx(solution.objective)
    grid, fields = read_vtu(folder / "posterior" / "posterior.vtu")
    assert set(fields.point) == {
        "mean",
        "posterior_std",
        "prior_std",
        *(f"{kind}_sample_{k}" for kind in ("posterior", "prior") for k in range(2)),
    }
    assert len(grid.points) == posterior.prior.size
    assert np.allclose(fields.point["posterior_std"], np.sqrt(posterior.variance))
    assert (fields.point["posterior_std"] < fields.point["prior_std"]).all()
    # The same again from the folder, with a chain, and then without.
    (folder / "posterior" / "posterior.vtu").unlink()
    result = invoke("posterior", folder, "--chain", 30)
    assert result.exit_code == 0, result.output
    assert "chain of 30 states: 100 % of the proposals" in result.output
    again = json.loads((folder / "posterior" / "posterior.json").read_text())
    assert again.pop("chain")["accepted"] == 1.0
    assert again["intervals"][0]["std"] == pytest.approx(numbers["intervals"][0]["std"], rel=1e-9)
    assert (folder / "posterior" / "posterior.vtu").exists()
    # A run without inference clears the folder and has no posterior.
    del sections["inference"]
    sections["objective"].append({"kind": "regularisation", "weight": 1e-4})
    assert invoke("solve", written(sections, tmp_path), "--output", folder).exit_code == 0
    assert not any((folder / "posterior").iterdir())
    refused = invoke("posterior", folder)
    assert refused.exit_code == 2
    assert "expected a run whose problem file has a section inference" in refused.output


def test_numbers_have_intervals_and_no_fields(tmp_path: Path) -> None:
    where = grid_points(3)
    sections = conductivity_inversion(sensor_file(tmp_path, where, where[:, 1] + 0.01), 5)
    sections["pde"] |= {"source": 1, "conductivity": "exp(a)"}
    sections |= {"control": {"kind": "parameter", "name": "a"}}
    sections["inference"]["prior"] = {"std": 0.5}
    folder = tmp_path / "run"
    result = invoke("solve", written(sections, tmp_path), "--output", folder)
    assert result.exit_code == 0, result.output
    assert "a = " in result.output
    assert "before the data 0.5" in result.output
    assert not (folder / "posterior" / "posterior.vtu").exists()


def test_a_run_that_has_not_converged_has_no_posterior(tmp_path: Path) -> None:
    sections = conductivity_inversion(data(tmp_path), 5, outer={"iterations": 1})
    folder = tmp_path / "run"
    result = invoke("solve", written(sections, tmp_path), "--output", folder)
    assert result.exit_code == 1
    assert "no posterior: the run is stopped" in result.output
    assert not (folder / "posterior").exists()
    refused = invoke("posterior", folder)
    assert refused.exit_code == 2
    assert "expected a run that has converged" in refused.output


def test_data_that_contradict_the_noise_are_noticed(tmp_path: Path) -> None:
    where, rng = grid_points(5), np.random.default_rng(0)
    file = sensor_file(tmp_path, where, 0.1 * rng.standard_normal(25))
    result = invoke("solve", written(source_inversion(file, 6), tmp_path), "--output", tmp_path / "run")
    assert "far from 1: inference.noise, the prior or the equation does not fit the data" in result.output


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "posterior.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(text.replace('.yaml")', '.yaml", {"mesh.cells": [8, 8]})'), "docs/posterior.md", "exec"), names)
    assert names["std"].shape == (81,)
    assert names["samples"].shape == (4, 81)
    assert names["mean_value"].low < names["mean_value"].value < names["mean_value"].high
    assert np.array_equal(names["longer"].samples, names["posterior"].chain(40, seed=1, step=0.5).samples)


def test_a_length_that_the_mesh_does_not_resolve_is_told(tmp_path: Path) -> None:
    sections = source_inversion(data(tmp_path), 20)
    assert not nhgd.load(sections).notices
    sections["inference"]["prior"]["length"] = 0.1
    (notice,) = nhgd.load(sections).notices
    assert "inference.prior.length is 2.1 times the distance of nodes, 0.0476" in notice


SENSORS = {"kind": "tracking", "at": "sensors.csv"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference": {"noise": 0}}, "inference.noise: expected a number above 0, found 0"),
        ({"inference": {"noise": [0.1, 0.2]}}, "expected a number for each of 1 tracking terms, found 2"),
        ({"inference": {"prior": {"std": 1}}}, "inference.prior.length: missing; expected the correlation length"),
        ({"inference": {"prior": {"control": "w", "length": 1}}}, "expected a prior of every control, found none"),
        ({"objective": [{"kind": "tracking", "target": 1}]}, "objective.0.at: missing beside inference"),
        ({"objective": [SENSORS, {"kind": "regularisation", "weight": 1}]}, "the prior is the regularisation"),
        ({"control": {"kind": "source", "bounds": [0, 1]}}, "expected no bounds beside inference"),
        ({"control": {"kind": "source", "space": "P0"}}, "expected P1 beside inference"),
        ({"method": "soba"}, "expected nhgd or adjoint beside inference, found 'soba'"),
        ({"inference": {"predict": [{"at": [0.5]}]}}, "inference.predict.0.at: expected 2 coordinates, found 1"),
        ({"inference": {"predict": [{"at": [0.5, 2]}]}}, "inference.predict.0.at: the point (0.5, 2) is outside"),
        (
            {"inference": {"predict": [{"at": [0, 0], "integral": 1}]}},
            "expected exactly one of at, integral; found both",
        ),
        ({"inference": {"predict": [{"integral": 1, "of": "u"}]}}, "expected state or a control that is a field"),
        ({"inference": {"predict": [{"integral": 1, "on": "core"}]}}, "core"),
        ({"inference": {"predict": [{"at": [0, 0], "component": 1}]}}, "expected a component below 1, found 1"),
        ({"parameters": {"k": {"normal": [0, 1]}}}, "parameters: expected none beside inference"),
        (
            {"inference": {"prior": [{"length": 1}, {"length": 2}]}},
            "expected one prior without a control, found several",
        ),
        ({"inference": {"threshold": 2}}, "inference.threshold: expected a number above 0 and below 1, found 2"),
    ],
)
def test_mistakes_name_key_expectation_and_value(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    sections = source_inversion(data(tmp_path), 4)
    sections = {**sections, **changes, "inference": {**sections["inference"], **changes.get("inference", {})}}
    if "objective" in changes:
        sections["objective"] = [
            {**each, "at": data(tmp_path)} if "at" in each else each for each in changes["objective"]
        ]
    with pytest.raises(nhgd.ProblemError, match=r"(?s).*") as caught:
        nhgd.load(sections)
    assert message in str(caught.value)
