"""The estimate of the discretisation error: against known optima, its parts, and what a run says of it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
import torch

import nhgd_pde as nhgd
from benchmarks.mesh_error import EXTRAPOLATED, Case, digits_said, measured, optimum_of
from benchmarks.reference import ALPHA, poisson_control
from nhgd_pde.discretisation import NoEstimateError, estimate_error
from nhgd_pde.discretisation.surplus import surplus
from nhgd_pde.fem.mesh import domain
from nhgd_pde.fem.nesting import parents, prolongation
from nhgd_pde.fem.refinement import halved
from nhgd_pde.fem.spaces import space
from nhgd_pde.output.counting_digits import counting_digits, with_uncertainty
from nhgd_pde.run.trust import digits_that_count

CPU = torch.device("cpu")
MESHES = {
    "line": skfem.MeshLine().refined(4),
    "triangle": skfem.MeshTri().refined(3),
    "quad": skfem.MeshQuad().refined(3),
    "tetra": skfem.MeshTet().refined(2),
    "hexahedron": skfem.MeshHex().refined(2),
}


def distorted(mesh: skfem.Mesh) -> skfem.Mesh:
    """The mesh with its vertices moved by an affine map, and inside by a little more where cells stay straight."""
    moved = mesh.p.copy()
    moved += 0.1 * np.roll(mesh.p, 1, axis=0)
    return type(mesh)(moved, mesh.t)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["semilinear", "l_shape"])
def test_nonlinear_and_singular_problems(name: str) -> None:
    case = EXTRAPOLATED[name]
    coarser = Case(case.at, case.cells[:-2], None, case.order)
    _, error, estimate = measured(coarser, coarser.cells[-1], optimum_of(coarser))
    assert 0.5 <= estimate.value / error <= 2.0


def test_a_kink_where_the_conductivity_jumps_is_no_error() -> None:
    """Patches do not cross an interface, along which the state has a kink that the mesh follows."""

    def at(n: int) -> nhgd.Problem:
        content = poisson_control(n, "x*(1-x)*y*(1-y)", 1e-4)
        content["parts"] = {"core": {"cells": "x < 0.5"}}
        content["pde"]["conductivity"] = {"core": 20.0, "default": 1.0}
        return nhgd.load(content)

    case = Case(at, (8, 16), None)
    optimum = optimum_of(case)
    for n in case.cells:
        _, error, estimate = measured(case, n, optimum)
        assert 0.7 <= estimate.value / error <= 1.4


# The parts of the estimate


@pytest.mark.parametrize("element", ["P0", "P1", "P2"])
@pytest.mark.parametrize("cell", list(MESHES))
def test_functions_of_the_space_are_carried_to_the_fine_mesh_exactly(cell: str, element: str) -> None:
    mesh = distorted(MESHES[cell])
    coarse = space(domain(mesh), element, CPU)
    fine = space(domain(halved(mesh, {}, {})[0]), element, CPU)
    matrix = prolongation(coarse, fine)
    if element == "P0":
        assert np.array_equal(matrix @ np.arange(coarse.size), parents(mesh))
        return
    degree = int(element[1:])

    def values(x: np.ndarray) -> np.ndarray:
        return 1.0 + sum((k + 2.0) * each**degree for k, each in enumerate(x))

    assert matrix @ values(coarse.nodes) == pytest.approx(values(fine.nodes), rel=1e-12)


@pytest.mark.parametrize("cell", list(MESHES))
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_the_surplus_of_a_polynomial_of_one_degree_more_is_exact(cell: str, element: str) -> None:
    mesh = distorted(MESHES[cell])
    coarse = space(domain(mesh), element, CPU)
    fine = space(domain(halved(mesh, {}, {})[0]), element, CPU)
    carried = prolongation(coarse, fine)
    matrix = surplus(coarse, carried, fine.nodes, np.zeros(mesh.nelements, dtype=int))
    degree = int(element[1:])
    for power in range(degree + 2):
        coarse_values, fine_values = (100.0 + (each[0] - 0.3) ** power for each in (coarse.nodes, fine.nodes))
        expected = fine_values - carried @ coarse_values
        assert matrix @ coarse_values == pytest.approx(expected, abs=1e-7)
        if power <= degree:
            assert np.abs(matrix @ coarse_values).max() <= 1e-7


def test_indicators_are_largest_at_a_singularity_and_sum_to_at_least_the_estimate() -> None:
    content = poisson_control(0, "0", 10.0, {"kind": "l_shape", "refine": 4})
    content["pde"]["source"] = 1
    problem = nhgd.load(content)
    found = estimate_error(problem, nhgd.solve(problem))
    mesh = problem.pde.space.domain.mesh
    assert found.indicator.shape == (mesh.nelements,)
    assert found.indicator.sum() >= abs(found.value) * (1.0 - 1e-12) - abs(found.data) - abs(found.control)
    # The densities, as the cells have equal areas.
    worst = mesh.p[:, mesh.t[:, np.argmax(found.indicator)]].mean(axis=1)
    assert np.abs(worst).max() <= 2.0 / 16


@pytest.mark.parametrize(
    ("value", "error", "digits", "text"),
    [
        (7.756669526e-04, 1.22e-6, 2, "7.76(2)e-04"),
        (6.031909657e-02, 1.3e-6, 4, "6.0319(2)e-02"),
        (0.6373280445, 3.2e-4, 2, "6.373(4)e-01"),
        (-1234.5, 0.0009, 6, "-1.2345000(9)e+03"),
        (1.0, 0.3, 0, "1.0(3)e+00"),
        (9.99, 0.099, 1, "10.0(1)e+00"),
        (1.0, 0.0, 16, "1.000000000e+00"),
        (0.0, 1e-3, 0, "0.0e+00 +- 1.0e-03"),
    ],
)
def test_digits_and_the_notation_of_an_uncertainty(value: float, error: float, digits: int, text: str) -> None:
    assert counting_digits(value, error) == digits
    assert with_uncertainty(value, error) == text


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_no_digit_counts_with_an_error_that_is_not_finite(error: float) -> None:
    assert counting_digits(1.0, error) == 0


@pytest.mark.parametrize("factor", [1e-9, 1e7])
def test_the_estimate_has_the_unit_of_the_objective(factor: float) -> None:
    def at(weight: float) -> Any:
        content = poisson_control(8, "sin(2*pi*x)*sin(2*pi*y)", ALPHA * weight)
        content["objective"][0]["weight"] = weight
        problem = nhgd.load(content)
        return estimate_error(problem, nhgd.solve(problem))

    one, other = at(1.0), at(factor)
    assert other.value == pytest.approx(factor * one.value, rel=1e-6)
    assert other.indicator == pytest.approx(factor * one.indicator, rel=1e-5)


# Runs


def test_a_run_says_how_many_digits_count(tmp_path: Path) -> None:
    problem = nhgd.load("problems/poisson_control.yaml", {"mesh.cells": [16, 16]})
    solution = nhgd.solve(problem, output=tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    estimate = estimate_error(problem, solution)
    assert summary["discretisation_error"] == pytest.approx(estimate.value, rel=1e-9)
    assert summary["digits"] == digits_said(solution.objective, estimate)
    assert set(summary["errors"]) == {"optimisation", "algebraic", "sampling", "discretisation", "estimate"}
    assert 0.0 <= summary["errors"]["optimisation"] <= 1e-3 * summary["errors"]["discretisation"]
    assert 0.0 <= summary["errors"]["algebraic"] <= 1e-6 * summary["errors"]["discretisation"]
    assert "the mesh leaves an error of about" in (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    cells = meshio.read(tmp_path / "run" / "final.vtu").cell_data["error_indicator"][0]
    assert np.asarray(cells).reshape(-1) == pytest.approx(estimate.indicator, rel=1e-9)


@pytest.mark.parametrize(
    ("choice", "kept", "made"), [("never", True, False), ("auto", False, False), ("always", False, True)]
)
def test_when_an_estimate_is_made(choice: str, kept: bool, made: bool, tmp_path: Path) -> None:
    problem = nhgd.load("problems/poisson_control.yaml", {"mesh.cells": [8, 8], "output.estimate": choice})
    solution = nhgd.solve(problem, output=tmp_path / "run" if kept else None)
    assert ("discretisation_error" in solution.stats) == made
    assert (solution.estimate is not None) == made


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("state_constraint", {"mesh.cells": [8, 8]}, "bounds"),
        ("robust_poisson", {"mesh.cells": [8, 8], "scenarios.count": 4}, "random inputs"),
    ],
)
def test_problems_without_an_estimate_say_why(file: str, changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    problem = nhgd.load(f"problems/{file}.yaml", {**changes, "outer.rtol": 1e-3})
    solution = nhgd.solve(problem, output=tmp_path / "run")
    assert solution.stats["discretisation_error"] is None
    assert solution.stats["digits"] is None
    assert reason in solution.stats["discretisation_missing"]
    with pytest.raises(NoEstimateError, match=reason):
        estimate_error(problem, solution)


# outer.rtol: auto


@pytest.mark.parametrize(
    ("file", "cells"),
    [("poisson_control", 32), ("poisson_bounds", 16), ("semilinear_control", 16), ("sparse_control", 16)],
)
def test_auto_leaves_at_most_a_tenth_of_the_error_of_the_mesh(file: str, cells: int) -> None:
    changes = {"mesh.cells": [cells, cells]}
    auto = nhgd.solve(nhgd.load(f"problems/{file}.yaml", {**changes, "outer.rtol": "auto"}))
    problem = nhgd.load(f"problems/{file}.yaml", changes)
    whole = nhgd.solve(problem)
    error = abs(estimate_error(problem, whole).value)
    assert auto.status == whole.status == "converged"
    assert auto.objective - whole.objective <= 0.1 * error
    assert auto.stats["outer_iterations"] < whole.stats["outer_iterations"]


def test_auto_is_resumed_to_the_same_end(tmp_path: Path) -> None:
    changes = {"mesh.cells": [16, 16], "outer.rtol": "auto", "output.checkpoint": 1}
    problem = nhgd.load("problems/poisson_bounds.yaml", changes)
    whole = nhgd.solve(problem, output=tmp_path / "whole")
    folder, seen = tmp_path / "cut", []

    def stop(row: Any) -> bool:
        seen.append(row)
        return len(seen) == 3

    nhgd.solve(nhgd.load("problems/poisson_bounds.yaml", changes), callback=stop, output=folder)
    resumed = nhgd.solve(nhgd.load("problems/poisson_bounds.yaml", changes), output=folder, resume=True)
    assert resumed.objective == pytest.approx(whole.objective, rel=1e-12)
    assert resumed.stats["outer_iterations"] == whole.stats["outer_iterations"]


def test_auto_without_an_estimate_is_the_default(tmp_path: Path) -> None:
    changes = {"mesh.cells": [8, 8], "scenarios.count": 4}
    auto = nhgd.load("problems/robust_poisson.yaml", {**changes, "outer.rtol": "auto"})
    found = nhgd.solve(auto, output=tmp_path / "run")
    default = nhgd.solve(nhgd.load("problems/robust_poisson.yaml", changes))
    assert found.objective == pytest.approx(default.objective, rel=1e-9)
    assert "no estimate of the mesh error" in (tmp_path / "run" / "run.log").read_text(encoding="utf-8")


def test_the_example_of_the_page_on_digits_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "accuracy.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(block, "docs/accuracy.md", "exec"), {})
    assert "the continuous optimum is about 7.744" in capsys.readouterr().out


def test_no_digit_counts_where_the_optimiser_has_only_begun(tmp_path: Path) -> None:
    problem = nhgd.load("problems/poisson_bounds.yaml", {"mesh.cells": [32, 32], "outer.iterations": 1})
    solution = nhgd.solve(problem, output=tmp_path / "run")
    assert solution.status == "stopped"
    assert solution.stats["errors"]["optimisation"] is None and solution.stats["digits"] == 0
    assert "of the optimiser is not known" in (tmp_path / "run" / "run.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", ["optimisation", "sampling", "estimate"])
@pytest.mark.parametrize("error", [float("inf"), float("nan")])
def test_no_digit_counts_where_an_error_is_not_finite(part: str, error: float) -> None:
    errors = {"optimisation": 1e-9, "sampling": None, "discretisation": 1e-5, "estimate": 1e-6}
    assert digits_that_count(1.0, errors, True) == 5
    assert digits_that_count(1.0, {**errors, part: error}, True) == 0


def test_an_unknown_error_of_the_optimiser_counts_where_the_run_has_not_converged() -> None:
    errors = {"optimisation": None, "discretisation": 1e-5}
    assert digits_that_count(1.0, errors, True) == 5
    assert digits_that_count(1.0, errors, False) == 0
