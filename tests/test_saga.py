"""The table of hypergradients over a finite sum: unbiased, and linearly convergent to the sample average's optimum."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scenario_problems import exact, natural, optimum, poisson_2d, restored, scenarios_of, waves
from torch import Tensor

from nhgd_pde.engine.loop import Iterate, Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.stochastic import StochasticApproximation
from nhgd_pde.engine.scenarios.saga import SAGA, SAGAState
from nhgd_pde.objective.risk import CVaR
from nhgd_pde.scenario_problem import ScenarioProblem

TIGHT = Accuracy(1e-11, 1e-11)


@pytest.fixture(scope="module")
def problem() -> ScenarioProblem:
    nominal = poisson_2d()
    return scenarios_of(nominal, waves(nominal, 24, 0.5))


@pytest.fixture(scope="module")
def points(problem: ScenarioProblem) -> tuple[Tensor, Tensor]:
    steps = torch.arange(problem.outer_size, dtype=torch.float64)
    return torch.sin(steps), torch.sin(steps) + 0.5 * torch.cos(0.3 * steps)


def filled(problem: ScenarioProblem, oracle: SAGA, v: Tensor) -> SAGAState:
    """A state whose table is filled at v."""
    state = oracle.init(problem, *problem.start())
    while any(seen is None for seen in state.table):
        _, state = oracle.evaluate(problem, v, state, TIGHT)
    return state


def draws(problem: ScenarioProblem, batch: int, points: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Hypergradients (count, p) of batches at the second point, with a table from the first point, and their errors."""
    oracle = SAGA(natural(), batch, share=0.0)
    state, found, errors = filled(problem, oracle, points[0]), [], []
    for seed in range(count):
        fresh = replace(state, left=torch.arange(0), generator=torch.Generator().manual_seed(seed))
        evaluation, _ = oracle.evaluate(problem, points[1], fresh, TIGHT)
        found.append(evaluation.derivative)
        errors.append(evaluation.sampling_error)
    return torch.stack(found), torch.tensor(errors, dtype=torch.float64)


def test_minibatches_are_unbiased_with_the_estimated_error(
    problem: ScenarioProblem, points: tuple[Tensor, Tensor]
) -> None:
    found, errors = draws(problem, 6, points, 200)
    expected = exact(problem, points[1]).derivative
    generator = torch.Generator().manual_seed(1)
    functionals = torch.randn(5, problem.outer_size, generator=generator, dtype=torch.float64)
    # The mean along the full gradient is right as well.
    functionals = torch.cat([functionals, problem.outer_metric.gradient(expected[None])])
    numbers = found @ functionals.T
    standard_errors = numbers.std(0) / math.sqrt(len(numbers))
    assert bool(((numbers.mean(0) - functionals @ expected).abs() < 3.0 * standard_errors).all())
    squares = [problem.outer_metric.dual_norm((each - expected)[None]) ** 2 for each in found]
    true = math.sqrt(sum(squares) / len(squares))
    assert math.sqrt(float(errors.square().mean())) == pytest.approx(true, rel=0.15)


def test_the_variance_is_inverse_to_the_batch_size(problem: ScenarioProblem, points: tuple[Tensor, Tensor]) -> None:
    expected = exact(problem, points[1]).derivative
    x, y = [], []
    for batch in (1, 2, 4, 8):
        found, _ = draws(problem, batch, points, 80)
        squares = [problem.outer_metric.dual_norm((each - expected)[None]) ** 2 for each in found]
        # Without replacement 1/b becomes 1/b - 1/S.
        x.append(math.log(1.0 / batch - 1.0 / 24.0))
        y.append(math.log(sum(squares) / len(squares)))
    line = torch.tensor([x, [1.0] * len(x)], dtype=torch.float64).T
    slope = float(torch.linalg.lstsq(line, torch.tensor(y, dtype=torch.float64)[:, None]).solution[0])
    assert 0.85 < slope < 1.15


def test_a_full_batch_is_exact(problem: ScenarioProblem, points: tuple[Tensor, Tensor]) -> None:
    oracle = SAGA(natural(), 24, share=0.0)
    state = filled(problem, oracle, points[0])
    evaluation, _ = oracle.evaluate(problem, points[1], state, TIGHT)
    expected = exact(problem, points[1])
    assert float((evaluation.derivative - expected.derivative).norm()) < 1e-9 * float(expected.derivative.norm())
    assert evaluation.value == pytest.approx(expected.value, rel=1e-10)
    assert evaluation.sampling_error == 0.0


def test_convergence_is_linear_to_the_optimum_of_the_sample_average(problem: ScenarioProblem) -> None:
    best = optimum(problem)
    iterates: list[Iterate] = []
    found = minimise(
        problem, SAGA(natural(), 6), StochasticApproximation(), Stopping(rtol=1e-9, iterations=150), iterates.append
    )
    assert found.status == "converged", found.message
    gaps = [exact(problem, each.evaluation.v).value / best.value - 1.0 for each in iterates]
    assert gaps[-1] < 1e-10
    # The rate holds from the second epoch until only rounding is left.
    kept = [(k, math.log10(gap)) for k, gap in enumerate(gaps) if k >= 8 and gap > 1e-12]
    assert kept[0][1] - kept[-1][1] > 7.0
    steps = torch.tensor([[k, 1.0] for k, _ in kept], dtype=torch.float64)
    logs = torch.tensor([log for _, log in kept], dtype=torch.float64)[:, None]
    fit = torch.linalg.lstsq(steps, logs).solution
    assert -0.6 < float(fit[0]) < -0.25
    residual = logs - steps @ fit
    assert 1.0 - float(residual.square().mean()) / float((logs - logs.mean()).square().mean()) > 0.96


def test_weights_of_scenarios_are_respected(problem: ScenarioProblem) -> None:
    weights = torch.arange(1.0, 25.0, dtype=torch.float64)
    weighted = replace(problem, weights=weights / weights.sum())
    v = torch.ones(problem.outer_size, dtype=torch.float64)
    oracle = SAGA(natural(), 5, share=0.0)
    state = filled(weighted, oracle, v)
    evaluation, _ = oracle.evaluate(weighted, v, state, TIGHT)
    # The reference is the mean over a sample in which scenarios are repeated according to their weights.
    rows = torch.stack([exact(problem_of(problem, s), v).derivative for s in range(24)])
    expected = weighted.weights @ rows
    assert float((evaluation.derivative - expected).norm()) < 1e-9 * float(expected.norm())


def problem_of(problem: ScenarioProblem, s: int) -> ScenarioProblem:
    return replace(problem, z=problem.z[s : s + 1], weights=torch.ones(1, dtype=torch.float64))


def test_the_table_grows_to_three_numbers_a_scenario_and_unknown(problem: ScenarioProblem) -> None:
    (count, n), p = problem.inner_shape, problem.outer_size
    oracle = SAGA(natural(), 5)
    state = oracle.init(problem, *problem.start())
    v, held = problem.start()[1], []
    for _ in range(12):
        _, state = oracle.evaluate(problem, v, state, Accuracy(1e-3, 1e-3))
        held.append(
            sum(each.u.numel() + each.p.numel() + each.h.numel() + 1 for each in state.table if each is not None)
        )
        rows = [row for seen in state.table if seen is not None for row in (seen.u, seen.p, seen.h)]
        # No row keeps the memory of a whole batch.
        assert sum(row.untyped_storage().nbytes() for row in rows) == 8 * sum(row.numel() for row in rows)
    one = 2 * n + p + 1
    # Nothing of the starting point stays in memory.
    assert held[:3] == [0, 5 * one, 10 * one] and held[5:] == [count * one] * 7


def test_a_resumed_run_gives_the_same_numbers(problem: ScenarioProblem) -> None:
    oracle = SAGA(natural(), 5, seed=3)
    state = oracle.init(problem, *problem.start())
    v = torch.ones(problem.outer_size, dtype=torch.float64)
    for k in range(7):
        _, state = oracle.evaluate(problem, (1.0 + 0.1 * k) * v, state, Accuracy(1e-4, 1e-4))
    again = restored(oracle, problem, state)
    for k in range(8):
        one, state = oracle.evaluate(problem, (2.0 - 0.1 * k) * v, state, Accuracy(1e-4, 1e-4))
        other, again = oracle.evaluate(problem, (2.0 - 0.1 * k) * v, again, Accuracy(1e-4, 1e-4))
        assert torch.equal(one.derivative, other.derivative) and one.value == other.value
        assert one.sampling_error == other.sampling_error


def test_other_risks_are_refused(problem: ScenarioProblem) -> None:
    risky = replace(problem, risk=CVaR(0.9))
    with pytest.raises(ValueError, match="expected the mean as risk measure"):
        SAGA(natural()).init(risky, *risky.start())


@pytest.mark.parametrize(
    ("control", "terms"),
    [
        ({"kind": "source", "bounds": [0, 20]}, []),
        ({"kind": "source"}, [{"kind": "regularisation", "norm": "l1", "weight": 2e-3}]),
    ],
    ids=["bounds", "l1"],
)
def test_optima_with_kinks_are_those_of_the_sample_average(
    control: dict[str, object], terms: list[dict[str, object]]
) -> None:
    fit = {"kind": "tracking", "target": "sin(pi*x)*sin(2*pi*y)"}
    objective = [fit, {"kind": "regularisation", "norm": "l2", "weight": 1e-4}, *terms]
    nominal = poisson_2d(control=control, objective=objective)
    problem = scenarios_of(nominal, waves(nominal, 24, 0.5))
    best = optimum(problem)
    found = minimise(problem, SAGA(natural(), 8), StochasticApproximation(), Stopping(rtol=1e-8))
    assert found.status == "converged", found.message
    v = found.last.evaluation.v
    assert problem.outer_metric.norm((v - best.v)[None]) < 1e-6 * problem.outer_metric.norm(best.v[None])
    # The same entries are exactly at kinks, except for corners without any effect on the objective.
    held = (best.v != 0.0) | (best.derivative != 0.0)
    assert int((~held).sum()) <= 4 and float((v * ~held).abs().max()) < 1e-8
    assert torch.equal((v == 0.0)[held], (best.v == 0.0)[held]) and int((v == 0.0).sum()) > 10
