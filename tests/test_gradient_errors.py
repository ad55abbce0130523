"""The errors that evaluations over scenarios report for their gradients, against the true ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenario_problems import field_problem, natural, poisson_2d, scenarios_of, waves

from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.newton_cg import NewtonCG
from nhgd_pde.engine.scenarios.growth import GrowthOptions
from nhgd_pde.engine.scenarios.scenario_nhgd import ScenarioNHGD
from nhgd_pde.engine.scenarios.scenario_state import ScenarioState
from nhgd_pde.scenario_problem import ScenarioProblem

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6)


def difference(problem: ScenarioProblem, a: torch.Tensor, b: torch.Tensor) -> float:
    return problem.outer_metric.dual_norm((a - b)[None])


def with_scenarios(state: ScenarioState, active: int, sampling_error: float | None = None) -> ScenarioState:
    error = state.fine.sampling_error if sampling_error is None else sampling_error
    return replace(state, fine=replace(state.fine, active=active, sampling_error=error))


@pytest.mark.parametrize("active", [64, 16])
@pytest.mark.parametrize(("size", "tolerances", "most"), [(0.5, TOLERANCES, 100.0), (1.5, TOLERANCES, 20.0)])
def test_the_error_of_states_and_adjoints_is_not_underestimated(
    active: int, size: float, tolerances: tuple[float, ...], most: float
) -> None:
    """With standard deviations 0.5 and 1.5 of the logarithm, one inverse for all scenarios is wrong by factors.

    The estimates are 1.5 to 50 times the true error, because the true error is that of the corrected solution.
    """
    nominal = poisson_2d()
    problem = scenarios_of(nominal, waves(nominal, 64, size), at_once=64)
    oracle = ScenarioNHGD(natural(), GrowthOptions(None, visible=math.inf, share=0.0))
    state = with_scenarios(oracle.init(problem, *problem.start()), active, 0.0)
    controls = [torch.sin(torch.arange(problem.outer_size, dtype=torch.float64))]
    controls.append(torch.ones_like(controls[0]))
    for v in controls:
        exact, _ = oracle.evaluate(problem, v, state, Accuracy(1e-12, 1e-12))
        for tolerance in tolerances:
            found, _ = oracle.evaluate(problem, v, state, Accuracy(tolerance, tolerance))
            true = difference(problem, found.derivative, exact.derivative)
            assert true < found.gradient_error - found.left_out < most * true


@pytest.mark.parametrize("near", [True, False], ids=["near the optimum", "elsewhere"])
@pytest.mark.parametrize("modes", [2, 10])
def test_the_estimated_sampling_error_is_the_distance_to_all_scenarios(modes: int, near: bool) -> None:
    """The root mean square over seeds is compared, for 8 to 64 of 128 scenarios.

    Near the optimum the estimate is 0.67 to 0.85 times the true error with 2 modes and 0.9 to 1.2 times with 10 modes;
    elsewhere it is 1.1 to 2.9 times. With 2 modes, the remainder of polynomials of degree two is large in few
    scenarios, which may be outside the batch.
    """
    estimated, true = [], []
    v = torch.full((field_problem(modes, 0).outer_size,), 3.0, dtype=torch.float64)
    if near:
        found = minimise(field_problem(modes, 0), ScenarioNHGD(natural()), NewtonCG(memory=10), Stopping(rtol=1e-6))
        v = 0.98 * found.last.evaluation.v
    for seed in range(12):
        problem, oracle = field_problem(modes, seed), ScenarioNHGD(natural(), GrowthOptions(None))
        every = oracle.init(problem, *problem.start())
        full, _ = oracle.evaluate(problem, v, every, Accuracy(1e-8, 1e-8))
        for active in (8, 16, 32, 64):
            part, _ = oracle.evaluate(problem, v, with_scenarios(every, active), Accuracy(1e-8, 1e-8))
            estimated.append(part.sampling_error)
            true.append(difference(problem, part.derivative, full.derivative))
    squares = [torch.tensor(each, dtype=torch.float64).reshape(12, 4).square().mean(0) for each in (estimated, true)]
    ratio = (squares[0] / squares[1]).sqrt()
    assert float(ratio.min()) > 0.6 and float(ratio.max()) < 3.5, ratio
