"""Unusual bounds of the state: tight tolerances, huge or contradictory bounds, stages, random data."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.scales import UNKNOWN, GradientScales
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.run.rounds import started

PLATE: dict[str, Any] = {
    "name": "plate",
    "mesh": {"kind": "rectangle", "cells": [8, 8]},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [{"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)"}, {"kind": "regularisation", "weight": 1e-4}],
    "constraints": [{"kind": "state", "upper": 0.5}],
}


def solve(file: dict[str, Any], overrides: dict[str, Any]) -> nhgd.Solution:
    return nhgd.solve(nhgd.load(copy.deepcopy(file), overrides))


@pytest.mark.parametrize("tolerance", [1e-9, 1e-13])
def test_a_tight_tolerance_with_bounds_of_the_control(tolerance: float) -> None:
    """Rounding limits the accuracy of Newton systems, and the goal of the run is met before the bounds hold."""
    rough = solve(PLATE, {"control.bounds": [0, 9]})
    found = solve(PLATE, {"control.bounds": [0, 9], "constraints.0.tolerance": tolerance})
    assert found.status == "converged"
    (told,) = found.stats["constraints"]
    assert told["violation"] <= told["tolerance"] <= 2.0 * tolerance
    assert found.stats["outer_iterations"] <= rough.stats["outer_iterations"] + 30
    assert found.stats["solves"]["products"] <= 2 * rough.stats["solves"]["products"]
    assert found.objective == pytest.approx(rough.objective, rel=1e-5)


def test_the_goal_of_a_round_that_starts_with_a_violation() -> None:
    """The goal is a tenth of the first gradient, even if it is below the goal of the run or rounding errors."""
    usual, tight = Stopping(rtol=1e-8, atol=1e-3), Stopping(rtol=1e-8, atol=1e-3, reduction=0.1)
    noisy = GradientScales(1.0, 1e-2)
    assert usual.goal(1e-4, UNKNOWN) == 1e-3 and usual.goal(1e-4, noisy) == 1e-2
    assert tight.goal(1e-4, UNKNOWN) == tight.goal(1e-4, noisy) == pytest.approx(1e-5)
    assert tight.goal(1.0, UNKNOWN) == 1e-3


@pytest.mark.parametrize("huge", [1e4, 1e300])
def test_a_huge_bound_counts_as_no_bound(huge: float) -> None:
    """It does not increase the tolerance of the other bounds."""
    half = solve(PLATE, {"constraints.0.upper": f"where(x < 0.5, 0.4, {huge!r})"})
    more = solve(PLATE, {"constraints.0.upper": "where(x < 0.5, 0.4, 100)"})
    assert half.status == more.status == "converged"
    assert half.stats["constraints"][0]["violation"] <= half.stats["constraints"][0]["tolerance"] < 1e-6
    assert half.objective == pytest.approx(more.objective, rel=1e-3)


def test_bounds_that_contradict_each_other_are_named() -> None:
    """The report has the objective of the file, although the penalties are larger by orders of magnitude at the end."""
    bounds = [
        {"kind": "state", "lower": "0.3*sin(pi*x)*sin(pi*y)"},
        {"kind": "state", "upper": "0.2*sin(pi*x)*sin(pi*y)"},
    ]
    found = solve(PLATE, {"constraints": bounds})
    assert found.status == "stopped"
    assert "no control was found with which the bounds of the state hold: at x = 0.5, y = 0.5 the " in found.message
    assert "of constraints." in found.message
    plain = build(read_problem(copy.deepcopy({key: value for key, value in PLATE.items() if key != "constraints"})))
    state = torch.from_numpy(found.state[:, plain.equation.free])
    value = plain.outer_value(state, torch.from_numpy(found.control))
    assert found.objective == pytest.approx(value, rel=1e-6)


def test_equal_bounds_fix_the_state() -> None:
    formula = "0.1*x*(1 - x)*y*(1 - y)"
    found = solve(PLATE, {"constraints.0": {"kind": "state", "upper": formula, "lower": formula}})
    assert found.status == "converged"
    x, y = found.problem.space.nodes
    wanted = 0.1 * x * (1 - x) * y * (1 - y)
    assert abs(found.state[0] - wanted).max() <= found.stats["constraints"][0]["tolerance"]


VECTOR: dict[str, dict[str, Any]] = {
    "elasticity": {
        **PLATE,
        "mesh": {"kind": "rectangle", "cells": [6, 4]},
        "pde": {"kind": "elasticity", "young": 1, "poisson_ratio": 0.3, "boundary": {"left": {"dirichlet": [0, 0]}}},
        "objective": [{"kind": "tracking", "target": [0.1, 0.2]}, {"kind": "regularisation", "weight": 1e-3}],
        "constraints": [{"kind": "state", "upper": 0.1, "component": 1}],
    },
    "imaginary part": {
        **PLATE,
        "pde": {"kind": "helmholtz", "wavenumber": 3, "boundary": {"right": {"absorbing": True}}},
        "objective": [
            {"kind": "tracking", "target": [0, 1]},
            {"kind": "regularisation", "weight": 1e-5},
        ],
        "constraints": [{"kind": "state", "upper": 0.05, "component": 1}],
    },
}


@pytest.mark.parametrize("name", list(VECTOR))
def test_bounds_of_one_component(name: str) -> None:
    ours, exact = (solve(VECTOR[name], {"method": method}) for method in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    (told,) = exact.stats["constraints"]
    assert told["multiplier"] > 0.0 and told["violation"] <= told["tolerance"]
    assert ours.objective == pytest.approx(exact.objective, rel=1e-6)


def test_every_stage_of_a_continuation_has_the_bounds() -> None:
    density = {"kind": "density", "low": 1e-2, "penalty": [1, 3], "initial": 0.4}
    overrides = {
        "pde": {"kind": "poisson", "source": 1, "boundary": {"left": {"dirichlet": 0}}},
        "control": density,
        "objective": [{"kind": "compliance"}],
        "constraints": [{"kind": "volume", "fraction": 0.5}, {"kind": "state", "upper": 1.2, "tolerance": 1e-3}],
    }
    problem = nhgd.load(copy.deepcopy(PLATE), overrides)
    first, last = problem.stages
    assert len(first.state_bounds) == len(last.state_bounds) == 1
    assert len(started(first).objective.relaxed) == 1
    assert len(first.reports) == 1
    found = nhgd.solve(problem)
    assert found.status in ("converged", "stopped")
    if found.status == "converged":
        assert found.state.max() <= 1.2 + found.stats["constraints"][1]["tolerance"]


def test_reports_have_the_boundary_values_of_each_scenario() -> None:
    """u = 0.3 b on the boundary with b between -1 and 1 reaches the bound 0.1 only in some scenarios."""
    overrides = {
        "mesh.cells": [4, 4],
        "pde.boundary.all.dirichlet": "0.3*b",
        "parameters": {"b": {"uniform": [-1, 1]}},
        "scenarios": {"count": 6, "validation": 0},
        "constraints.0.upper": 0.1,
    }
    found = solve(PLATE, overrides)
    assert found.status == "stopped" and "boundary or initial values fix the state" in found.message
    assert found.stats["constraints"][0]["violation"] == pytest.approx(found.state.max() - 0.1, rel=1e-9)
    assert found.state.max() - 0.1 > 0.05
