"""Bounds of the state over scenarios under a risk measure: they also hold in scenarios that the measure ignores."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import blueprint_of
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.methods.sample_average import SampleAverage
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.run.rounds import started
from problems import random, slope

# -(u'/q)' = v with u = 0 at both ends, hence u = q G v with Green's operator G of -u''. q is low or high, each with
# probability 1/2 (the Gauss rule with two points). The objective is rho(c int u) + 1/2 |v|^2 with c > 0: the measures
# depend on the high scenario only, while the obstacle 0.5 - 8 (x - 1/2)^2 is touched, at x = 1/2, in the low one only.
LOW, HIGH, COST = 0.8, 1.3, 3.0
MIDDLE, SPREAD = (LOW + HIGH) / 2.0, (HIGH - LOW) / 2.0 * 3.0**0.5
BEAM: dict[str, Any] = {
    "name": "beam",
    "mesh": {"kind": "interval", "cells": 16},
    "pde": {"kind": "poisson", "conductivity": "1/q", "boundary": {"all": {"dirichlet": 0}}},
    "parameters": {"q": {"uniform": [MIDDLE - SPREAD, MIDDLE + SPREAD]}},
    "scenarios": {"sampling": "quadrature", "rule": "tensor", "points": 2, "validation": 0},
    "risk": "worst_case",
    "control": {"kind": "source"},
    "objective": [{"kind": "linear_state", "weight": COST}, {"kind": "regularisation", "weight": 1}],
    "constraints": [{"kind": "state", "lower": "0.5 - 8*(x - 0.5)**2"}],
}
PLATE: dict[str, Any] = {
    **BEAM,
    "mesh": {"kind": "rectangle", "cells": [4, 4]},
    "pde": {
        "kind": "poisson",
        "conductivity": "exp(0.2*a)",
        "source": "b",
        "boundary": {"all": {"dirichlet": 0}},
    },
    "parameters": {"a": {"normal": [0, 1]}, "b": {"uniform": [-1, 1]}},
    "scenarios": {"count": 4, "validation": 0},
    "objective": [{"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)"}, {"kind": "regularisation", "weight": 1e-4}],
    "constraints": [{"kind": "state", "upper": 0.5}],
}
RISKS: dict[str, Any] = {
    "worst case": "worst_case",
    "cvar": {"cvar": 0.5},
    "entropic": {"entropic": 1.0},
    "deviation": {"mean_plus_deviation": 0.5},
}


def solve(file: dict[str, Any], overrides: dict[str, Any]) -> nhgd.Solution:
    return nhgd.solve(nhgd.load(copy.deepcopy(file), overrides))


def least() -> float:
    """The minimum: v = m low g - high c w, with g = G(., 1/2), w = G 1, |g|^2 = 1/48, (g, w) = 5/384, |w|^2 = 1/120.

    m is the load of the multiplier at x = 1/2, times the weight of the scenario, for which low (g, v) = 1/2.
    """
    load = (0.5 + LOW * HIGH * COST * 5.0 / 384.0) * 48.0 / LOW**2
    mean = load * LOW * 5.0 / 384.0 - HIGH * COST / 120.0
    square = (load * LOW) ** 2 / 48.0 - 2.0 * load * LOW * HIGH * COST * 5.0 / 384.0 + (HIGH * COST) ** 2 / 120.0
    return HIGH * COST * mean + 0.5 * square


@pytest.mark.parametrize("method", [pytest.param("nhgd", marks=pytest.mark.slow), "adjoint"])
@pytest.mark.parametrize("risk", ["worst case", "cvar"])
def test_bounds_hold_in_scenarios_without_weight_in_the_measure(risk: str, method: str) -> None:
    cells = [6, 12, 24]
    gaps = []
    for n in cells:
        found = solve(BEAM, {"mesh.cells": n, "risk": RISKS[risk], "method": method})
        assert found.status == "converged"
        (told,) = found.stats["constraints"]
        assert told["violation"] <= told["tolerance"]
        gaps.append(abs(found.objective - least()))
    assert gaps[-1] < 2e-4 * least()
    assert slope([1.0 / n for n in cells], gaps) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
@pytest.mark.parametrize("risk", list(RISKS))
def test_equal_scenarios_have_the_optimum_without_random_inputs(risk: str, method: str) -> None:
    """Any measure of a constant is the constant, so the optimum is that without random inputs."""
    pde = {"kind": "poisson", "conductivity": "1 + 0*a", "boundary": {"all": {"dirichlet": 0}}}
    overrides = {"pde": pde, "method": method}
    plain = {key: value for key, value in PLATE.items() if key not in ("parameters", "scenarios", "risk")}
    one = solve(plain, {"pde": {**pde, "conductivity": 1}})
    found = solve(
        {**PLATE, "parameters": {"a": {"normal": [0, 1]}}},
        {**overrides, "risk": RISKS[risk], "scenarios": {"count": 3, "validation": 0}},
    )
    assert found.status == one.status == "converged"
    assert found.objective == pytest.approx(one.objective, rel=1e-6)
    assert np.abs(found.control - one.control).max() < 1e-3 * np.abs(one.control).max()


@pytest.mark.parametrize("risk", ["cvar", *(pytest.param(name, marks=pytest.mark.slow) for name in list(RISKS)[2:])])
def test_both_methods_find_the_same_optimum_over_scenarios(risk: str) -> None:
    """The scenarios have different states, which are all within the bounds."""
    ours, exact = (solve(PLATE, {"risk": RISKS[risk], "method": method}) for method in ("nhgd", "adjoint"))
    for found in (ours, exact):
        assert found.status == "converged"
        assert found.stats["outer_iterations"] < 250
        assert found.state.max() - 0.5 <= found.stats["constraints"][0]["tolerance"]
    assert ours.objective == pytest.approx(exact.objective, rel=1e-6)


def test_scenarios_with_negative_weights_satisfy_the_bounds() -> None:
    """Smolyak's rule has negative weights."""
    rule = {"sampling": "quadrature", "rule": "sparse", "level": 3, "validation": 0}
    found = solve(PLATE, {"risk": "mean", "scenarios": rule, "method": "adjoint"})
    assert min(found.judgement.weights) < 0.0
    assert found.status == "converged"
    assert found.state.max() - 0.5 <= found.stats["constraints"][0]["tolerance"]


@pytest.mark.parametrize("risk", ["cvar", "entropic"])
def test_the_derivative_with_penalties_and_a_risk_measure(risk: str) -> None:
    """The derivative of the objective with multipliers and a penalty is compared with differences."""
    file = read_problem(copy.deepcopy(PLATE), {"risk": RISKS[risk], "method": "adjoint"})
    problem = started(blueprint_of(file).problem)
    (relaxation,) = problem.relaxations
    multiplier = 0.1 * random(4, relaxation.multiplier.shape[1]).abs()
    problem = problem.relaxed((replace(relaxation, multiplier=multiplier, penalty=30.0),))
    oracle = SampleAverage("factors")
    v, d = 4.0 * random(problem.outer_size).abs(), random(problem.outer_size).roll(1)

    def at(point: Any) -> Any:
        return oracle.evaluate(problem, point, oracle.init(problem, problem.start()[0], v), Accuracy(1e-12, 1e-12))

    step = 1e-4
    ahead, behind = (at(v + sign * step * d)[0].value for sign in (1.0, -1.0))
    evaluation, state = at(v)
    assert (ahead - behind) / (2.0 * step) == pytest.approx(float(evaluation.derivative @ d), rel=1e-5)
    assert problem.outer_value(state.u, v) == pytest.approx(evaluation.value, rel=1e-9)
    assert problem.file_value(state.u, v) == pytest.approx(evaluation.value - problem.surplus(state.u, v), rel=1e-9)


@pytest.mark.parametrize("stop", [6, 14])
def test_an_interrupted_run_resumes_with_the_same_numbers(stop: int, tmp_path: Path) -> None:
    """The run is interrupted between rounds, and every scenario has its multipliers."""
    settings = {"risk": RISKS["cvar"], "method": "adjoint", "output.checkpoint": 1}
    whole, asked = solve(PLATE, settings), 0

    def interrupted() -> bool:
        nonlocal asked
        asked += 1
        return asked > stop

    problem = nhgd.load(copy.deepcopy(PLATE), settings)
    first = nhgd.solve(problem, output=tmp_path / "run", interrupted=interrupted)
    assert first.status == "interrupted"
    rest = nhgd.solve(nhgd.load(copy.deepcopy(PLATE), settings), output=tmp_path / "run", resume=True)
    assert rest.objective == whole.objective
    assert (rest.control == whole.control).all()
