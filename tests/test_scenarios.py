"""Optimisation over scenarios against direct solves of the sample-average problem."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scenario_problems import field_problem, natural, poisson_2d, scenarios_of, waves
from torch import Tensor

from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.newton_cg import NewtonCG
from nhgd_pde.engine.scenarios.growth import GrowthOptions
from nhgd_pde.engine.scenarios.scenario_nhgd import ScenarioNHGD
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.objective.risk import CVaR, Entropic
from nhgd_pde.scenario_problem import ScenarioProblem


def method(first: int | None = 8) -> ScenarioNHGD:
    return ScenarioNHGD(NHGD(InnerOptions(), Factored(), HypergradientOptions()), GrowthOptions(first))


def all_at_once(problem: ScenarioProblem):
    """The sample as one problem, whose inner variables are the states of all scenarios."""
    return problem.part(torch.arange(problem.inner_shape[0]))


@pytest.fixture(scope="module")
def problem() -> ScenarioProblem:
    nominal = poisson_2d()
    return scenarios_of(nominal, waves(nominal, 24, 0.5), at_once=7)


def exact_derivative(problem: ScenarioProblem, v: Tensor) -> Tensor:
    whole = all_at_once(problem)
    adjoint = Adjoint()
    evaluation, _ = adjoint.evaluate(whole, v, adjoint.init(whole, whole.start()[0], v), Accuracy(1e-12, 1e-12))
    return evaluation.derivative


def test_the_hypergradient_over_all_scenarios_is_that_of_their_adjoints(problem: ScenarioProblem) -> None:
    v = torch.sin(torch.arange(problem.outer_size, dtype=torch.float64))
    oracle = method(first=None)
    state = oracle.init(problem, *problem.start())
    evaluation, _ = oracle.evaluate(problem, v, state, Accuracy(1e-12, 1e-12))
    expected = exact_derivative(problem, v)
    assert float((evaluation.derivative - expected).norm()) < 1e-10 * float(expected.norm())
    assert evaluation.sampling_error == 0.0 and evaluation.scenarios == 24


def test_growing_batches_end_at_the_optimum_of_the_whole_sample(problem: ScenarioProblem) -> None:
    oracle, stopping = method(), Stopping(rtol=1e-9)
    found = minimise(problem, oracle, NewtonCG(memory=10), stopping)
    assert found.status == "converged", found.message
    whole = all_at_once(problem)
    expected = minimise(whole, Adjoint(), NewtonCG(memory=10), stopping)
    assert expected.status == "converged"
    assert found.last.evaluation.value == pytest.approx(expected.last.evaluation.value, rel=1e-9)
    difference = found.last.evaluation.v - expected.last.evaluation.v
    assert problem.outer_metric.norm(difference[None]) < 1e-6 * problem.outer_metric.norm(
        expected.last.evaluation.v[None]
    )


def test_the_first_iterations_use_the_first_scenarios_only(problem: ScenarioProblem) -> None:
    seen = []
    minimise(
        problem, method(4), NewtonCG(memory=10), Stopping(rtol=1e-9), callback=lambda it: seen.append(it.evaluation)
    )
    assert seen[0].scenarios == 0 and seen[-1].scenarios == 24
    assert [each.scenarios for each in seen] == sorted(each.scenarios for each in seen)
    assert all((each.sampling_error > 0.0) == (0 < each.scenarios < 24) for each in seen)


@pytest.mark.parametrize("risk", [Entropic(20.0), CVaR(0.7, smoothing=3e-3)], ids=lambda risk: risk.name)
def test_other_risk_measures_end_at_their_optimum(problem: ScenarioProblem, risk) -> None:
    risky = replace(problem, risk=risk)
    oracle = method(first=None)
    v = torch.ones(problem.outer_size, dtype=torch.float64)
    state = oracle.init(risky, *risky.start())
    at = []
    direction = torch.cos(torch.arange(problem.outer_size, dtype=torch.float64))
    for t in (0.0, 1e-2, 5e-3):
        evaluation, state = oracle.evaluate(risky, v + t * direction, state, Accuracy(1e-11, 1e-11))
        at.append(evaluation)
    slope = float(at[0].derivative @ direction)
    remainders = [abs(each.value - at[0].value - t * slope) for each, t in zip(at[1:], (1e-2, 5e-3), strict=True)]
    assert remainders[0] / remainders[1] == pytest.approx(4.0, rel=0.05)
    found = minimise(risky, oracle, NewtonCG(memory=10), Stopping(rtol=1e-7))
    assert found.status == "converged", found.message


@pytest.mark.parametrize("rtol", [0.3, 0.1, 1e-3])
def test_a_loose_goal_takes_only_as_many_scenarios_as_needed(rtol: float) -> None:
    problem = replace(field_problem(10, 1), at_once=128)
    found = minimise(problem, ScenarioNHGD(natural()), NewtonCG(memory=10), Stopping(rtol=rtol))
    assert found.status == "converged", found.message
    last, goal = found.last, rtol * found.first.gradient_norm
    true = exact_derivative(problem, last.evaluation.v)
    assert problem.outer_metric.dual_norm(true[None]) <= goal
    taken = last.evaluation.scenarios
    assert taken == 128 if rtol < 1e-2 else 0 < taken < 128
    if taken < 128:
        assert last.gradient_norm + 2.0 * last.evaluation.sampling_error <= goal
        assert "for scenarios left out" in found.message
