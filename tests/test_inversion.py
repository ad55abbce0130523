"""Measurements at sensors, and the inversion for a conductivity from them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from benchmarks.inversion_data import PATH, table
from nhgd_pde.building.blueprint import build
from nhgd_pde.fem.interpolation import OutsideMeshError, at_points
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from problems import BASE, space_of

PROBLEM = "problems/log_conductivity_inversion.yaml"
HEAT = {"pde.kind": "heat", "time": {"end": 0.1, "steps": 3}}


def with_sensors(path: Path, text: str, overrides: dict[str, Any] | None = None) -> nhgd.Problem:
    file = path / "sensors.csv"
    file.write_text(text)
    return nhgd.load(copy.deepcopy(BASE), {"objective.0": {"kind": "tracking", "at": str(file)}, **(overrides or {})})


def complaint(path: Path, text: str, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ProblemError) as caught:
        with_sensors(path, text, overrides)
    (issue,) = caught.value.issues
    return f"{issue.key}: {issue.message}"


@pytest.mark.parametrize(("element", "degree"), [("P1", 1), ("P2", 2)])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_values_at_points_are_exact_for_polynomials(dim: int, element: str, degree: int) -> None:
    functions = space_of(dim, 4, element)
    points = np.random.default_rng(0).uniform(0.0, 1.0, (dim, 20))
    points[:, :2] = 0.0, 1.0
    rows = at_points(functions, points)
    assert np.allclose(rows @ (functions.nodes.sum(axis=0) ** degree), points.sum(axis=0) ** degree, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_point_outside_is_named(dim: int) -> None:
    points = np.full((dim, 3), 0.5)
    points[0, 1] = 1.25
    with pytest.raises(OutsideMeshError) as caught:
        at_points(space_of(dim, 3, "P1"), points)
    assert caught.value.index == 1


def test_the_misfit_is_a_weighted_sum_of_squares(tmp_path: Path) -> None:
    text = "# x, y, value, weight\n0.25, 0.5, 1.5, 2\n\n0.7 , 0.3, -1, 0.5  # the last one\n"
    term = with_sensors(tmp_path, text, {"objective.0.weight": 3}).pde.objective.state[0]
    x, y = build(read_problem(copy.deepcopy(BASE))).space.nodes
    u = torch.from_numpy(1.0 + x + 2.0 * y)[None]
    expected = 1.5 * (2.0 * (2.25 - 1.5) ** 2 + 0.5 * (2.3 + 1.0) ** 2)
    assert float(term.value(u)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("overrides", [{}, {"element": "P2"}, {**HEAT, "objective.0.time": "final"}])
def test_derivatives_with_sensors(tmp_path: Path, overrides: dict[str, Any]) -> None:
    found = nhgd.verify(with_sensors(tmp_path, "0.25 0.5 1\n0.7 0.3 -1\n1 1 0\n", overrides))
    assert found.passed, str(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1, 0.2\n", "line 1: expected 3 or 4 columns (x, y, 1 value, maybe a weight), found 2"),
        ("0.1, 0.2, 1\n0.1, 0.2, 1, 1\n", "line 2: expected 3 columns as above, found 4"),
        ("0.1, 0.2, 1\nx, y, value\n", "line 2: expected numbers, found 'x, y, value'"),
        (
            "x, z, value\n0.1, 0.2, 1\n",
            "expected columns named x, y, maybe t, 1 value by any names, maybe weight; found x, z, value",
        ),
        ("x, y, u, w\n0.1, 0.2, 1, 1\n", "expected a last column named weight, found 'w'"),
        ("x, y, x\n0.1, 0.2, 1\n", "line 1: expected names that differ, found x, y, x"),
        ("x, y, t, u\n0.1, 0.2, 1, 1\n", "expected no column t in a steady problem"),
        ("0.1, 0.2, nan\n", "line 1: expected finite numbers, found '0.1, 0.2, nan'"),
        ("0.1, 0.2, 1, -1\n", "line 1: expected a weight of at least 0, found -1"),
        ("# nothing\n", "expected rows of 3 or 4 columns (x, y, 1 value, maybe a weight), found none"),
        ("0.1, 0.2, 1\n# two\n0.5, 1.5, 1\n", "line 3: the point (0.5, 1.5) is outside the mesh"),
    ],
)
def test_bad_files_of_sensors_are_refused(tmp_path: Path, text: str, message: str) -> None:
    assert complaint(tmp_path, text) == f"objective.0.at: {tmp_path / 'sensors.csv'}: {message}"


def test_missing_files_and_files_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name, message in (
        ("none.csv", "expected a file of sensors, found nothing at"),
        ("binary.csv", "cannot be read"),
    ):
        with pytest.raises(ProblemError, match=message):
            nhgd.load(copy.deepcopy(BASE), {"objective.0": {"kind": "tracking", "at": str(tmp_path / name)}})


def test_tracking_needs_either_sensors_or_a_target(tmp_path: Path) -> None:
    row = "0.1, 0.2, 1\n"
    assert "expected none beside `at`" in complaint(tmp_path, row, {"objective.0.target": 1})
    assert "expected none beside `at`" in complaint(tmp_path, row, {"objective.0.on": "top"})
    assert "expected final, or a column t in the file" in complaint(tmp_path, row, HEAT)
    with pytest.raises(ProblemError, match="target: missing"):
        nhgd.load(copy.deepcopy(BASE), {"objective.0": {"kind": "tracking"}})


def test_paths_are_relative_to_the_problem_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "here.csv").write_text("0.1, 0.2, 1\n")
    file = tmp_path / "problem.yaml"
    file.write_text(
        "name: here\nmesh: {kind: rectangle, cells: [4, 4]}\npde: {kind: poisson, boundary: {all: {dirichlet: 0}}}\n"
        "control: {kind: source}\nobjective: [{kind: tracking, at: data/here.csv}]\n"
    )
    assert nhgd.load(file).pde.objective.state[0].quadratic


def test_the_shipped_data_can_be_reproduced() -> None:
    assert np.allclose(np.loadtxt(PATH, delimiter=","), table(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("method", "most"), [("lbfgs", 60), ("newton_cg", 15)])
def test_inversion_on_coarser_meshes(method: str, most: int) -> None:
    """On 64 x 64 cells at most 60 quasi-Newton or 15 Newton iterations are allowed, independent of the mesh."""
    solution = nhgd.solve(nhgd.load(PROBLEM, {"outer.method": method, "mesh.cells": [32, 32]}))
    assert solution.status == "converged"
    assert solution.stats["outer_iterations"] <= most
    x, y = solution.problem.control.parts[0].nodes
    truth = np.log(2.0 + 7.0 * (np.hypot(x - 0.5, y - 0.5) > 0.2))
    start = np.sqrt(((np.log(2.0) - truth) ** 2).mean())
    assert np.sqrt(((solution.control - truth) ** 2).mean()) < 0.3 * start


@pytest.mark.slow
@pytest.mark.parametrize(("method", "most"), [("lbfgs", 60), ("newton_cg", 15)])
def test_the_shipped_inversion_finds_the_conductivity(method: str, most: int) -> None:
    ours, exact = (
        nhgd.solve(nhgd.load(PROBLEM, {"outer.method": method, "method": each})) for each in ("nhgd", "adjoint")
    )
    assert ours.status == exact.status == "converged"
    assert ours.stats["outer_iterations"] <= min(most, 1.2 * exact.stats["outer_iterations"])
    assert ours.objective == pytest.approx(exact.objective, rel=1e-6)


def test_verify_shrinks_steps_that_make_parameters_invalid() -> None:
    """Long steps make 1 + b x negative; differences over shorter steps show that the Hessian is right."""
    problem = {
        **copy.deepcopy(BASE),
        "pde": {
            "kind": "poisson",
            "conductivity": "a*(1 + b*x)",
            "source": 1,
            "boundary": {"all": {"dirichlet": 0}, "left": {"robin": {"coefficient": 1, "value": 0.1}}},
        },
        "control": [
            {"kind": "parameter", "name": "a", "initial": 1, "bounds": [0.1, 10]},
            {"kind": "parameter", "name": "b"},
        ],
    }
    found = nhgd.verify(nhgd.load(problem))
    assert found.passed, str(found)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"objective.0.time": "final"}, "objective.0.time: expected a problem with time, found a steady one"),
        (
            {"objective.1.smoothing": 0.01},
            "objective.1.smoothing: expected none beside norm l2, as it is that of tv; found 0.01",
        ),
    ],
)
def test_keys_without_effect_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as error:
        nhgd.load(copy.deepcopy(BASE), overrides)
    assert message in str(error.value)
    assert len(error.value.issues) == 1


def test_an_equation_without_conductivity_is_reported_once() -> None:
    pde = {"kind": "elasticity", "boundary": {"all": {"dirichlet": [0, 0]}}}
    problem = {**copy.deepcopy(BASE), "pde": pde, "control": {"kind": "log_conductivity"}}
    problem["objective"] = [{"kind": "tracking", "target": [0, 0]}]
    with pytest.raises(ProblemError) as error:
        nhgd.load(problem)
    (issue,) = error.value.issues
    assert "control.kind: expected an equation with a scalar conductivity" in str(issue)


def test_an_objective_without_a_lower_bound_is_reported() -> None:
    problem = {**copy.deepcopy(BASE), "objective": [{"kind": "linear_state"}]}
    found = nhgd.solve(nhgd.load(problem))
    assert found.status == "stopped"
    assert "it seems to have no lower bound" in found.message
