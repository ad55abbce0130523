"""Problems with random inputs, from the problem file to the run folder."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.choice.compared_methods import OVER_SCENARIOS
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.stochastic import StochasticApproximation
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.methods.robbins_monro import RobbinsMonro
from nhgd_pde.methods.sample_average import SampleAverage
from nhgd_pde.output.fields import read_vtu
from nhgd_pde.problem_file.errors import ProblemError

SIGMA, ALPHA, CELLS = 0.4, 1e-3, 8
PROBLEMS = Path(__file__).parents[1] / "problems"


def one_scalar(**more: Any) -> dict[str, Any]:
    """-a Lap y = u, a = exp(sigma s), on squares, where the sine is an eigenvector of the discrete Laplacian too."""
    data = {
        "name": "one_scalar",
        "mesh": {"kind": "rectangle", "cells": [CELLS, CELLS], "cell": "quadrilateral"},
        "parameters": {"s": {"normal": [0, 1]}},
        "pde": {"kind": "poisson", "conductivity": f"exp({SIGMA}*s)", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [
            {"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)", "target_at": "nodes"},
            {"kind": "regularisation", "norm": "l2", "weight": ALPHA},
        ],
        "scenarios": {"count": 64},
    }
    return copy.deepcopy({**data, **more})


CERTAIN = {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}}


def eigenvalue() -> float:
    """The smallest eigenvalue of the discrete Laplacian of bilinear elements on a square of CELLS^2 cells."""
    h = 1.0 / CELLS
    c = math.cos(math.pi * h)
    return 2.0 * (6.0 / h**2) * (1.0 - c) / (2.0 + c)


def amplitude(weights: np.ndarray, z: np.ndarray) -> float:
    """The amplitude of the optimal control for weighted scenarios: u* = (E[1/a] / l) / (alpha + E[1/a^2] / l^2)."""
    inverse, first = np.exp(-SIGMA * z), eigenvalue()
    return float((weights @ inverse / first) / (ALPHA + weights @ inverse**2 / first**2))


def exact_amplitude() -> float:
    """The amplitude in the limit (reference case of one random scalar)."""
    first = eigenvalue()
    return math.exp(SIGMA**2 / 2) / first / (ALPHA + math.exp(2 * SIGMA**2) / first**2)


def reached(solution: nhgd.Solution) -> float:
    return float(np.abs(solution.control).max())


def test_a_quadrature_gives_the_closed_form_to_its_last_digits() -> None:
    problem = nhgd.load(one_scalar(scenarios={"sampling": "quadrature", "rule": "tensor", "points": 12}))
    solution = nhgd.solve(problem)
    assert solution.status == "converged", solution.message
    assert reached(solution) == pytest.approx(exact_amplitude(), rel=1e-7)


def test_without_fresh_scenarios_statistics_use_the_weights_of_a_quadrature() -> None:
    scenarios = {"sampling": "quadrature", "rule": "tensor", "points": 12, "validation": 0}
    solution = nhgd.solve(nhgd.load(one_scalar(scenarios=scenarios)))
    found, judged = solution.stats["uncertainty"], solution.judgement
    assert judged is not None
    assert found["objective_mean"] == pytest.approx(solution.objective, rel=1e-8)
    spread = judged.weights @ (judged.values - solution.objective) ** 2
    assert found["objective_std"] == pytest.approx(math.sqrt(spread), rel=1e-6)
    low, middle, high = (found["objective_quantiles"][q] for q in ("0.05", "0.5", "0.95"))
    assert judged.values.min() <= low < middle < high < judged.values.max()


def test_a_sample_gives_the_optimum_of_that_sample() -> None:
    problem = nhgd.load(one_scalar())
    solution = nhgd.solve(problem)
    assert solution.status == "converged", solution.message
    assert problem.scenarios is not None
    samples = problem.scenarios.samples
    assert reached(solution) == pytest.approx(amplitude(samples.weights, samples.z[:, 0]), rel=1e-7)
    assert solution.stats["gradient_error_parts"]["sampling"] == 0.0


@pytest.mark.parametrize("adjoints", [{"solver": "factors"}, {"solver": "cg"}, {"solver": "cg", "warm": False}])
def test_a_sample_average_ends_at_the_same_optimum(adjoints: dict[str, Any]) -> None:
    found = nhgd.solve(nhgd.load(one_scalar(method="sample_average", adjoints=adjoints)))
    assert found.status == "converged", found.message
    assert found.objective == pytest.approx(nhgd.solve(nhgd.load(one_scalar())).objective, rel=1e-9)


def test_stochastic_gradients_come_closer_to_the_optimum_with_every_epoch() -> None:
    """With one random scalar the control has one mode, whose curvature limits the step."""
    scenarios = {"count": 64, "validation": 0}
    best = nhgd.load(one_scalar(scenarios=scenarios))
    assert best.scenarios is not None
    samples = best.scenarios.samples
    expected = amplitude(samples.weights, samples.z[:, 0])
    curvature = float(samples.weights @ np.exp(-2 * SIGMA * samples.z[:, 0])) / eigenvalue() ** 2 + ALPHA
    errors = []
    for iterations in (8, 80, 800):
        outer = {"step": 2.0 / curvature, "shift": 10.0, "power": 1.0, "iterations": iterations}
        data = one_scalar(method="robbins_monro", outer=outer, scenarios=scenarios, adjoints={"batch": 8})
        solution = nhgd.solve(nhgd.load(data))
        assert solution.status == "stopped"
        errors.append(abs(reached(solution) / expected - 1.0))
    assert errors[0] > 5.0 * errors[1] > 25.0 * errors[2]


def test_options_reach_the_methods_over_scenarios() -> None:
    adjoints = {"solver": "cg", "tolerance": 1e-3, "warm": False, "batch": 5, "fresh": True}
    more: dict[str, Any] = {"adjoints": adjoints, "outer": {"step": 3.0, "shift": 4.0, "power": 0.6}, "seed": 7}
    assert nhgd.load(one_scalar(method="sample_average", **more)).method.oracle == SampleAverage("nominal", 1e-3, False)
    stochastic = nhgd.load(one_scalar(method="robbins_monro", **more)).method
    assert stochastic.oracle == RobbinsMonro(5, True, 1e-3, "nominal", seed=7)
    assert stochastic.outer == StochasticApproximation(natural=False, step=3.0, shift=4.0, power=0.6)
    assert nhgd.load(one_scalar(method="robbins_monro")).method.oracle == RobbinsMonro(start="kept")
    streaming = nhgd.load(one_scalar(scenarios={"strategy": "streaming"}, outer={"shift": 5, "power": 0.5})).method
    assert streaming.outer == StochasticApproximation(shift=5.0, power=0.5)
    for name in OVER_SCENARIOS:
        assert nhgd.load(one_scalar(method=name)).method.oracle.name == name


def test_the_exact_adjoint_finds_the_same_optimum_over_scenarios() -> None:
    found = [nhgd.solve(nhgd.load(one_scalar(method=method))) for method in ("nhgd", "adjoint")]
    assert [each.status for each in found] == ["converged", "converged"]
    assert found[0].objective == pytest.approx(found[1].objective, rel=1e-9)


@pytest.mark.parametrize("strategy", ["all", "saga"])
def test_every_strategy_over_a_sample_ends_at_the_same_optimum(strategy: str) -> None:
    expected = nhgd.solve(nhgd.load(one_scalar()))
    found = nhgd.solve(nhgd.load(one_scalar(scenarios={"count": 64, "strategy": strategy}, outer={"rtol": 1e-6})))
    # On the way a table of gradients reports a running mean; at the end the value is that of all scenarios.
    assert found.judgement is not None
    assert found.judgement.in_sample == pytest.approx(expected.objective, rel=1e-6)


@pytest.mark.slow
def test_sobol_points_give_the_control_to_three_digits_in_ten_seeds() -> None:
    scenarios = {"count": 4096, "validation": 0, "batch": 512}
    errors = [
        reached(nhgd.solve(nhgd.load(one_scalar(scenarios=scenarios, seed=seed)))) / exact_amplitude() - 1.0
        for seed in range(10)
    ]
    assert np.abs(errors).max() < 1e-3


def test_a_run_folder_has_the_statistics_and_every_scenario(tmp_path: Path) -> None:
    problem = nhgd.load(one_scalar(output={"exceedance": 0.9}))
    solution = nhgd.solve(problem, output=tmp_path / "run")
    _, final = read_vtu(tmp_path / "run" / "final.vtu")
    assert {"state", "state_std", "state_exceedance", "state_best", "state_median", "state_worst"} <= set(final.point)
    state = solution.state
    np.testing.assert_allclose(final.point["state"], state.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(final.point["state_std"], state.std(axis=0), atol=1e-9)
    np.testing.assert_allclose(final.point["state_exceedance"], (state > 0.9).mean(axis=0), atol=1e-12)
    with open(tmp_path / "run" / "scenarios.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 64 + 100
    own = [float(row["objective"]) for row in rows if row["sample"] == "1"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert np.mean(own) == pytest.approx(summary["objective"], rel=1e-8)
    assert summary["uncertainty"]["in_sample"] == pytest.approx(summary["objective"], rel=1e-8)
    assert summary["scenarios"] == 64
    found = summary["uncertainty"]
    assert found["out_of_sample"] == pytest.approx(found["objective_mean"], rel=1e-12)
    assert found["interval"][0] < found["out_of_sample"] < found["interval"][1]
    assert "polynomials of known mean" in found["estimator"] and "mean in 100 fresh scenarios" in summary["message"]
    weights = np.array([float(row["weight"]) for row in rows if row["sample"] == "0"])
    assert weights.sum() == pytest.approx(1.0) and weights.min() < 0.5 * weights.max()


def test_a_run_that_is_resumed_ends_with_the_same_numbers(tmp_path: Path) -> None:
    data = one_scalar(pde={**one_scalar()["pde"], "conductivity": "exp(0.4*s*cos(pi*x))"})
    whole = nhgd.solve(nhgd.load(data), output=tmp_path / "whole")
    nhgd.solve(nhgd.load({**data, "outer": {"iterations": 2}}), output=tmp_path / "parts")
    parts = nhgd.solve(nhgd.load(data), output=tmp_path / "parts", resume=True)
    assert parts.status == "converged"
    assert np.array_equal(parts.control, whole.control)
    assert parts.objective == whole.objective


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"method": "soba"},
            "method: expected one of nhgd, adjoint, sample_average, robbins_monro for a problem with random inputs, "
            "found 'soba'",
        ),
        (
            {"method": "robbins_monro", "risk": {"cvar": 0.9}},
            "risk: expected mean, which a minibatch estimates, with method robbins_monro",
        ),
        (
            {"method": "robbins_monro", "outer": {"method": "lbfgs"}},
            "outer.method: expected auto or gradient: steps of robbins_monro are not searched, found 'lbfgs'",
        ),
        (
            {"method": "sample_average", "parameters": {}, "scenarios": None, "pde": CERTAIN},
            "method: expected a method for one scenario, found 'sample_average', which goes through many",
        ),
        ({"curvature": {"kind": "dense"}}, "expected factored, which scenarios can share, found 'dense'"),
        (
            {"risk": {"cvar": 0.9}, "scenarios": {"strategy": "saga"}},
            "expected growing or all with a risk other than the mean",
        ),
    ],
)
def test_options_that_do_not_work_with_scenarios_are_reported(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProblemError, match=sentence):
        nhgd.load(one_scalar(**change))


def test_fresh_scenarios_are_not_stretched_out_of_the_range_of_coefficients() -> None:
    """The conductivity 1 + 0.2 s is not positive below s = -5, where stretched scenarios would be."""
    data = one_scalar(
        pde={**one_scalar()["pde"], "conductivity": "1+0.2*s"}, scenarios={"count": 64, "validation": 400}
    )
    solution = nhgd.solve(nhgd.load(data))
    assert solution.judgement is not None and not solution.judgement.drawn.wide
    assert math.isfinite(solution.judgement.interval[0]) and "rare" not in solution.stats["uncertainty"]["estimator"]


def test_a_stream_is_judged_by_scenarios_that_it_has_not_seen() -> None:
    problem = nhgd.load(one_scalar(scenarios={"strategy": "streaming"})).scenarios
    assert problem is not None and problem.problem.stream is not None
    seen, judging = problem.problem.stream(0, 1000), problem.problem.fresh(1000, False).z
    assert not np.isin(judging, seen).any()


@pytest.mark.parametrize("risk", [{"cvar": 0.8}, {"entropic": 5.0}, {"mean_plus_deviation": 1.0}, "worst_case"])
def test_every_risk_measure_is_least_with_its_own_optimum(risk: Any) -> None:
    averse, neutral = (nhgd.solve(nhgd.load(one_scalar(risk=each))) for each in (risk, "mean"))
    assert averse.status == "converged", averse.message
    assert averse.judgement is not None and neutral.judgement is not None
    measure, weights = averse.judgement.risk, averse.judgement.weights
    other = measure.exact(torch.from_numpy(neutral.judgement.values), torch.from_numpy(weights))
    assert averse.judgement.in_sample < other


def test_at_active_bounds_errors_are_relative_to_the_projected_gradient() -> None:
    """Nearly everywhere the derivative points out of the bounds, so that its length does not measure optimality."""
    source = PROBLEMS / "uncertain_source.yaml"
    smaller = {"mesh.cells": [24, 12], "scenarios.count": 16}
    found = [nhgd.solve(nhgd.load(source, {**smaller, "method": method})) for method in ("nhgd", "adjoint")]
    assert [each.status for each in found] == ["converged", "converged"]
    assert found[0].objective == pytest.approx(found[1].objective, rel=1e-7)


METHODS: list[dict[str, Any]] = [
    {"method": "nhgd"},
    {"method": "adjoint"},
    {"method": "sample_average", "adjoints": {"solver": "cg"}},
    {"method": "robbins_monro"},
    {"scenarios": {"count": 64, "strategy": "saga", "validation": 0}},
    {"scenarios": {"count": 64, "strategy": "all", "validation": 0}},
]


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("risk", ["mean", {"cvar": 0.9}, {"entropic": 0.5}, {"mean_plus_deviation": 1.0}, "worst_case"])
def test_the_objective_is_that_of_the_control_over_all_scenarios(risk: Any, iterations: int) -> None:
    """The reference has states by factors of every scenario, at the reported control."""
    for method in METHODS:
        stochastic = method.get("method") == "robbins_monro" or "saga" in str(method)
        if stochastic and risk != "mean":
            continue
        more = {"scenarios": {"count": 64, "validation": 0}, **method, "risk": risk}
        problem = nhgd.load(one_scalar(outer={"iterations": iterations}, **more))
        found = nhgd.solve(problem)
        assert problem.scenarios is not None and found.judgement is not None
        whole, v = problem.scenarios.problem, torch.from_numpy(found.control)
        part = whole.part(torch.arange(64))
        exact = Adjoint()
        state = exact.init(part, part.start()[0], v)
        _, state = exact.evaluate(part, v, state, Accuracy(1e-12, 1e-12))
        values = part.scenario_values(state.u, v) + whole.nominal.control_value(v)
        expected = found.judgement.risk.exact(values, whole.weights)
        assert found.objective == pytest.approx(expected, rel=1e-7), method
        assert found.stats["objective"] == found.objective


def test_the_random_inputs_of_every_scenario_are_in_the_table(tmp_path: Path) -> None:
    field = {"field": {"covariance": "matern", "length": 0.3, "std": 0.5, "modes": 2}}
    data = one_scalar(
        parameters={"weight": {"uniform": [2, 3]}, "k": field},
        pde={**one_scalar()["pde"], "conductivity": "weight*exp(k)"},
        scenarios={"count": 8, "validation": 5},
        outer={"iterations": 1},
    )
    problem = nhgd.load(data)
    nhgd.solve(problem, output=tmp_path / "run")
    assert problem.scenarios is not None
    z = problem.scenarios.samples.z
    with open(tmp_path / "run" / "scenarios.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["scenario", "sample", "weight", "objective", "input.weight", "k[1]", "k[2]"]
    own = [row for row in rows if row["sample"] == "1"]
    assert [float(row["input.weight"]) for row in own] == pytest.approx(list(2.5 + 0.5 * z[:, 0]))
    assert [float(row["k[2]"]) for row in own] == pytest.approx(list(z[:, 2]))
    assert len(rows) == 13 and all(2.0 <= float(row["input.weight"]) <= 3.0 for row in rows)


def test_an_infinite_entropic_risk_is_reported_without_an_interval() -> None:
    """The objective is quadratic in a log-normal variable, whose exponential has no mean."""
    found = nhgd.solve(nhgd.load(one_scalar(risk={"entropic": 5.0})))
    assert found.judgement is not None and all(math.isnan(end) for end in found.judgement.interval)
    assert "the expectation may be infinite" in found.message
    assert "the expectation may be infinite" in found.stats["uncertainty"]["estimator"]
