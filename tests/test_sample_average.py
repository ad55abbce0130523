"""The compared methods over scenarios against the adjoint of the whole sample, and the work they do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scenario_problems import exact, optimum, poisson_2d, restored, scenarios_of, waves
from torch import Tensor

from nhgd_pde.engine.loop import Iterate, Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.stochastic import StochasticApproximation
from nhgd_pde.methods.robbins_monro import RobbinsMonro
from nhgd_pde.methods.sample_average import SampleAverage
from nhgd_pde.objective.risk import CVaR, Entropic
from nhgd_pde.scenario_problem import ScenarioProblem

ANY = Accuracy(1e-3, 1e-3)
VARIANTS = {
    "factors": SampleAverage("factors"),
    "warm": SampleAverage("nominal", 1e-12),
    "cold": SampleAverage("nominal", 1e-12, warm=False),
}


def fresh(count: int = 24, at_once: int = 7) -> ScenarioProblem:
    """A new problem with its own counters; parts have 7 scenarios and the last one has 3."""
    nominal = poisson_2d()
    return scenarios_of(nominal, waves(nominal, count, 0.5), at_once=at_once)


@pytest.fixture
def problem() -> ScenarioProblem:
    return fresh()


def control(problem: ScenarioProblem) -> Tensor:
    return torch.sin(torch.arange(problem.outer_size, dtype=torch.float64))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("at_once", [7, 1])
def test_every_variant_gives_the_adjoint_gradient_of_the_whole_sample(name: str, at_once: int) -> None:
    problem, oracle = fresh(at_once=at_once), VARIANTS[name]
    state = oracle.init(problem, *problem.start())
    for v in (control(problem), control(problem) + 1.0):
        evaluation, state = oracle.evaluate(problem, v, state, ANY)
        expected = exact(problem, v)
        assert float((evaluation.derivative - expected.derivative).norm()) < 1e-9 * float(expected.derivative.norm())
        assert evaluation.value == pytest.approx(expected.value, rel=1e-10)


@pytest.mark.parametrize("risk", [Entropic(20.0), CVaR(0.7, smoothing=3e-3)], ids=lambda risk: risk.name)
def test_other_risks_have_the_derivative_of_their_value(problem: ScenarioProblem, risk: CVaR) -> None:
    risky, v = replace(problem, risk=risk), control(problem)
    direction = torch.cos(torch.arange(problem.outer_size, dtype=torch.float64))
    found = []
    for oracle in VARIANTS.values():
        state, at = oracle.init(risky, *risky.start()), []
        for t in (0.0, 1e-2, 5e-3, 2.5e-3):
            evaluation, state = oracle.evaluate(risky, v + t * direction, state, ANY)
            at.append(evaluation)
        slope = float(at[0].derivative @ direction)
        rest = [abs(each.value - at[0].value - t * slope) for each, t in zip(at[1:], (1e-2, 5e-3, 2.5e-3), strict=True)]
        assert rest[0] / rest[1] == pytest.approx(4.0, rel=0.1) and rest[1] / rest[2] == pytest.approx(4.0, rel=0.1)
        found.append(at[0].derivative)
    for other in found[1:]:
        assert float((other - found[0]).norm()) < 1e-9 * float(found[0].norm())


@pytest.mark.parametrize("oracle", [SampleAverage("factors"), SampleAverage("nominal", None)], ids=["factors", "cg"])
def test_sample_average_finds_the_optimum_of_the_adjoint(problem: ScenarioProblem, oracle: SampleAverage) -> None:
    found = minimise(problem, oracle, LBFGS(), Stopping(rtol=1e-7))
    assert found.status == "converged", found.message
    assert found.last.evaluation.value == pytest.approx(optimum(problem).value, rel=1e-10)


def test_scenarios_are_factorised_once_and_no_solve_is_wasted(problem: ScenarioProblem) -> None:
    oracle = SampleAverage("factors")
    state = oracle.init(problem, *problem.start())
    before = replace(problem.counts)
    _, state = oracle.evaluate(problem, control(problem), state, ANY)
    # The metric of errors takes one more factorisation.
    assert (problem.counts - before).factorisations == 24 + 1
    before = replace(problem.counts)
    for k in range(3):
        _, state = oracle.evaluate(problem, control(problem) + k, state, ANY)
    spent = problem.counts - before
    assert (spent.factorisations, spent.solves) == (0, 3 * 2 * 24)


def test_warm_starts_and_rough_tolerances_save_solves(problem: ScenarioProblem) -> None:
    spent = {}
    for name, oracle in {
        "cold": SampleAverage("nominal", 1e-6, warm=False),
        "warm": SampleAverage("nominal", 1e-6),
        "rough": SampleAverage("nominal", 1e-2),
    }.items():
        state = oracle.init(problem, *problem.start())
        _, state = oracle.evaluate(problem, control(problem), state, ANY)
        before = replace(problem.counts)
        evaluation, state = oracle.evaluate(problem, 1.01 * control(problem), state, ANY)
        spent[name] = (problem.counts - before).solves
        assert max(evaluation.state_error, evaluation.adjoint_error) <= oracle.tolerance
    assert spent["rough"] < spent["warm"] < 0.8 * spent["cold"]


def test_factors_that_do_not_fit_are_refused_with_their_bytes(problem: ScenarioProblem) -> None:
    oracle = SampleAverage("factors", memory=1e5)
    state = oracle.init(problem, *problem.start())
    with pytest.raises(ValueError, match=r"the factors of 24 scenarios take about [\d,]+ bytes, of which 100,000 may"):
        oracle.evaluate(problem, control(problem), state, ANY)


@pytest.mark.parametrize(
    "oracle",
    [*VARIANTS.values(), RobbinsMonro(4), RobbinsMonro(4, start="kept"), RobbinsMonro(4, True, start="zero")],
    ids=lambda oracle: f"{oracle.name} {getattr(oracle, 'solver', getattr(oracle, 'start', ''))}",
)
def test_a_resumed_run_gives_the_same_numbers(problem: ScenarioProblem, oracle: SampleAverage | RobbinsMonro) -> None:
    state = oracle.init(problem, *problem.start())
    v = control(problem)
    for k in range(4):
        _, state = oracle.evaluate(problem, (1.0 + 0.1 * k) * v, state, ANY)
    again = restored(oracle, problem, state)
    for k in range(4):
        one, state = oracle.evaluate(problem, (2.0 - 0.1 * k) * v, state, ANY)
        other, again = oracle.evaluate(problem, (2.0 - 0.1 * k) * v, again, ANY)
        assert torch.equal(one.derivative, other.derivative) and one.value == other.value


@pytest.mark.parametrize("start", ["zero", "nominal", "kept"])
def test_an_epoch_of_stochastic_gradients_is_the_full_one(problem: ScenarioProblem, start: str) -> None:
    oracle = RobbinsMonro(5, tolerance=1e-11, start=start)  # type: ignore[arg-type]
    state, v = oracle.init(problem, *problem.start()), control(problem)
    total = torch.zeros_like(v)
    taken = 0
    # Every batch has a part of f_0, and the weights of batches are 24 / b / 24.
    while taken < 24:
        evaluation, state = oracle.evaluate(problem, v, state, ANY)
        total += evaluation.scenarios / 24.0 * evaluation.derivative
        taken += evaluation.scenarios
    expected = exact(problem, v).derivative
    assert float((total - expected).norm()) < 1e-9 * float(expected.norm())


def test_stochastic_gradients_come_near_the_optimum_with_decaying_steps(problem: ScenarioProblem) -> None:
    best, iterates = optimum(problem), list[Iterate]()
    outer = StochasticApproximation(natural=False, step=1000.0, power=0.6)
    minimise(problem, RobbinsMonro(8, True, 1e-2), outer, Stopping(iterations=120), iterates.append)
    assert [each.step for each in iterates[1:4]] == pytest.approx([1000.0 / (k + 1.0) ** 0.6 for k in range(3)])
    gaps = [exact(problem, iterates[k].evaluation.v).value / best.value - 1.0 for k in (1, 10, 120)]
    assert gaps[0] > 5.0 * gaps[1] > 10.0 * gaps[2]
    assert gaps[2] < 5e-3


def test_steps_that_are_too_long_end_with_a_sentence(problem: ScenarioProblem) -> None:
    outer = StochasticApproximation(natural=False, step=2000.0)
    found = minimise(problem, RobbinsMonro(8), outer, Stopping(iterations=120))
    assert "diverge" in found.message and "take a smaller one" in found.message


def test_stochastic_gradients_of_another_risk_are_refused(problem: ScenarioProblem) -> None:
    risky = replace(problem, risk=Entropic(2.0))
    with pytest.raises(ValueError, match="expected the mean as risk measure"):
        RobbinsMonro().init(risky, *risky.start())
    with pytest.raises(ValueError, match="nothing kept"):
        RobbinsMonro(fresh=True, start="kept")
