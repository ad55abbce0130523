"""Constraints: volumes of densities and their derivatives, bounds of the state against a known optimum."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build
from nhgd_pde.objective.constraints import VolumeConstraint
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from problems import random, slope

STATE = Path("problems/state_constraint.yaml")
# The objective of the continuous problem, by quadrature of its known solution.
LEAST = 0.04106728907996

DESIGN: dict[str, Any] = {
    "name": "design",
    "mesh": {"kind": "rectangle", "cells": [6, 5]},
    "pde": {"kind": "poisson", "source": 1, "boundary": {"left": {"dirichlet": 0}}},
    "control": {"kind": "density", "low": 1e-2},
    "objective": [{"kind": "compliance"}],
    "constraints": [{"kind": "volume", "fraction": 0.4}],
}


def design(overrides: dict[str, Any] | None = None) -> PDEProblem:
    return build(read_problem(copy.deepcopy(DESIGN), overrides))


def volume(pde: PDEProblem) -> VolumeConstraint:
    assert isinstance(pde.constraint, VolumeConstraint)
    return pde.constraint


def bounded(cells: int, **overrides: Any) -> nhgd.Problem:
    return nhgd.load(STATE, {"mesh.cells": [cells, cells], **overrides})


@pytest.mark.parametrize("space", ["P0", "P1"])
def test_volume_of_a_known_density(space: str) -> None:
    pde = design({"control.space": space})
    v = torch.from_numpy(pde.control.parts[0].nodes[0])
    assert volume(pde).volume(v) == pytest.approx(0.5, abs=1e-14)
    assert volume(pde).value(v) == pytest.approx(0.1, abs=1e-14)


def test_the_volume_is_that_of_the_region_of_the_density() -> None:
    pde = build(
        read_problem(
            copy.deepcopy({**DESIGN, "mesh": {"file": "meshes/plate.msh"}}),
            {"pde.boundary": {"all": {"dirichlet": 0}}, "control.on": "pad"},
        )
    )
    assert volume(pde).volume(torch.ones(pde.outer_size, dtype=torch.float64)) == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize(
    "control",
    [
        {"control.space": "P0", "control.filter": "cone", "control.filter_radius": 0.4},
        {"control.filter_radius": 0.4},
        {"control.filter_radius": 0.4, "control.projection": {"slope": 3, "threshold": 0.4}},
        {"control.space": "P0", "control.filter_radius": 0.4, "control.projection": {"slope": 3}},
    ],
)
def test_derivative_of_the_volume(control: dict[str, Any]) -> None:
    constraint = volume(design(control))
    size = len(constraint.derivative(constraint.controls.initial))
    v, step = 0.5 + 0.2 * torch.sin(torch.arange(size, dtype=torch.float64)), 0.1 * random(size)
    base, rate = constraint.value(v), float(constraint.derivative(v) @ step)
    if "control.projection" not in control:
        assert constraint.value(v + step) - base == pytest.approx(rate, rel=1e-10)
        return
    steps = [0.5**k for k in range(3, 8)]
    assert slope(steps, [abs(constraint.value(v + t * step) - base - t * rate) for t in steps]) == pytest.approx(
        2.0, abs=0.1
    )


def test_every_stage_of_a_continuation_has_the_volume_with_its_slope() -> None:
    pde = design({"control.projection": {"slope": 5}, "control.penalty": [1, 3]})
    stages = [*pde.earlier, pde]
    assert len(stages) == 5
    v = torch.full((pde.outer_size,), 0.3, dtype=torch.float64)
    volumes = [volume(each).volume(v) for each in stages]
    assert volumes[0] == volumes[1]
    assert volumes == sorted(volumes, reverse=True) and volumes[-1] < 0.6 * volumes[0]
    assert volume(stages[2]).material is not None


def test_objective_and_control_converge_to_the_known_optimum_at_order_two() -> None:
    """The continuous solution is compared on four meshes; nodes satisfy the bound."""
    sizes, gaps, errors, counts = [8, 16, 32, 64], [], [], []
    for n in sizes:
        problem = bounded(n)
        solution = nhgd.solve(problem)
        assert solution.status == "converged"
        counts.append(solution.stats["outer_iterations"])
        gaps.append(abs(LEAST - solution.objective))
        part = problem.pde.control.parts[0]
        wanted = 10.0 * np.prod(np.sin(np.pi * part.nodes), axis=0)
        errors.append(problem.pde.outer_metric.norm(torch.from_numpy(solution.control - wanted)[None]))
        (report,) = solution.stats["constraints"]
        assert report["kind"] == "state" and 0.0 < report["violation_l2"] < 1e-6
        assert report["violation"] <= report["tolerance"] < 2e-6
        assert report["violation_between"] < 1e-6
    h = [1.0 / n for n in sizes]
    assert slope(h, gaps) == pytest.approx(2.0, abs=0.15)
    assert slope(h, errors) > 1.4
    assert gaps[-1] < 1.3e-3 * LEAST
    # The finest mesh takes only a few more steps of Newton's method in the last rounds.
    assert counts[-1] <= 1.2 * min(counts[1:])


def test_active_set_and_multiplier() -> None:
    """The multiplier is 10 (1/16 - d), d the squared distance from the centre, in a disk, and zero outside."""
    errors = []
    for n in (16, 32, 64):
        problem = bounded(n)
        solution = nhgd.solve(problem)
        x, y = problem.pde.space.nodes
        distance = np.hypot(x - 0.5, y - 0.5)
        (relaxation,) = solution.problem.relaxations
        density, weights = relaxation.multiplier[0].numpy(), relaxation.bounds.weights.numpy()
        exact = 10.0 * np.maximum(0.0, 1.0 / 16.0 - distance**2)
        errors.append(float(weights @ (density - exact) ** 2) ** 0.5)
        assert (density[distance < 0.25 - 2.0 / n] > 0.0).all()
        assert not (density[distance > 0.25 + 2.0 / n] > 0.0).any()
    assert slope([1.0 / 16.0, 1.0 / 32.0, 1.0 / 64.0], errors) > 1.4
    assert errors[-1] < 0.05 * np.sqrt(weights @ exact**2)


def test_the_result_does_not_depend_on_the_penalty() -> None:
    """With any first penalty, the excess ends below the tolerance and the value is the same."""
    found = []
    for penalty in (1e3, 1e4, 1e5, 1e6):
        solution = nhgd.solve(bounded(16, **{"constraints.0.penalty": penalty, "constraints.0.stages": 3}))
        (report,) = solution.stats["constraints"]
        assert solution.status == "converged" and report["violation"] <= report["tolerance"] < 2e-6
        found.append(solution.objective)
    assert found == pytest.approx(4 * [found[0]], rel=1e-6)


def test_lower_bounds_mirror_upper_ones() -> None:
    upper = nhgd.solve(bounded(12))
    spec = read_problem(STATE).spec
    mirrored = {
        "pde.source": f"-({spec.pde.source})",  # type: ignore[union-attr]
        "objective.0.target": f"-({spec.objective[0].target})",  # type: ignore[union-attr]
        "constraints.0": {"kind": "state", "lower": f"-({spec.constraints[0].upper})"},  # type: ignore[union-attr]
    }
    lower = nhgd.solve(bounded(12, **mirrored))
    assert lower.objective == pytest.approx(upper.objective, rel=1e-9)
    assert np.abs(lower.control + upper.control).max() < 1e-5


def test_both_methods_find_the_same_bounded_optimum() -> None:
    ours, exact = nhgd.solve(bounded(12)), nhgd.solve(bounded(12, method="adjoint"))
    assert ours.objective == pytest.approx(exact.objective, rel=1e-8)
    assert ours.stats["outer_iterations"] <= 1.2 * exact.stats["outer_iterations"]


def test_bounds_of_an_evolution() -> None:
    """A body is heated from inside: the state stays below its bound in every step and touches it."""
    file = {
        "name": "warm",
        "mesh": {"kind": "interval", "cells": 12},
        "pde": {"kind": "heat", "boundary": {"all": {"dirichlet": 0}}},
        "time": {"end": 0.5, "steps": 4},
        "method": "adjoint",
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": "sin(pi*x)"}, {"kind": "regularisation", "weight": 1e-3}],
    }
    bound = {"kind": "state", "upper": 0.6, "penalty": 1e4, "stages": 4}
    free = nhgd.solve(nhgd.load(copy.deepcopy(file)))
    held = nhgd.solve(nhgd.load(copy.deepcopy({**file, "constraints": [bound]})))
    assert held.status == "converged"
    assert free.state.max() > 0.8
    assert held.state.max() == pytest.approx(0.6, abs=5e-3)
    assert 0.0 < held.stats["constraints"][0]["violation"] < 1e-3
    assert held.objective > free.objective


def test_summary_and_last_line(tmp_path: Path) -> None:
    solution = nhgd.solve(nhgd.load(copy.deepcopy(DESIGN), {"outer.iterations": 3}), output=tmp_path / "run")
    (report,) = json.loads((tmp_path / "run" / "summary.json").read_text())["constraints"]
    assert report["kind"] == "volume" and report["violation"] <= 1e-9
    assert report["value"] <= 0.4 + 1e-9
    assert solution.message.endswith(f"; volume {report['value']:.4f} (at most 0.4)")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"constraints.0.fraction": 0}, "constraints.0.fraction: expected a number above 0, found 0"),
        ({"constraints.0.kind": "volme"}, "constraints.0.kind: expected one of volume, state, found 'volme'"),
        ({"constraints.0.control": "beam"}, "constraints.0.control: expected the name of a density (control)"),
        (
            {"constraints": [{"kind": "volume", "fraction": 0.3}, {"kind": "volume", "fraction": 0.2}]},
            "constraints.1.kind: expected one volume constraint",
        ),
        ({"constraints": [{"kind": "state"}]}, "constraints.0: expected upper, lower or both, found neither"),
        (
            {"constraints": [{"kind": "state", "upper": 0, "lower": "x"}]},
            "constraints.0.lower: expected lower <= upper",
        ),
        (
            {"constraints": [{"kind": "state", "upper": 1, "component": 1}]},
            "constraints.0.component: expected a component below 1, found 1",
        ),
        ({"constraints": [{"kind": "state", "upper": 1, "on": "core"}]}, "unknown subdomain 'core'"),
        ({"control": {"kind": "source"}}, "constraints.0.kind: expected a control of kind density"),
        ({"outer.method": "lbfgs"}, "outer.method: mma and oc take a constraint"),
    ],
)
def test_mistakes_in_constraints_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as error:
        nhgd.load(copy.deepcopy(DESIGN), overrides)
    assert message in str(error.value)
