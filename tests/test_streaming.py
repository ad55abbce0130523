"""Streams of scenarios, which are drawn from a finite sample here, so that the expectation is known."""

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
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.stochastic import StochasticApproximation
from nhgd_pde.engine.scenarios.streaming import Streaming
from nhgd_pde.methods.sample_average import SampleAverage
from nhgd_pde.objective.risk import CVaR, Entropic
from nhgd_pde.scenario_problem import ScenarioProblem

TIGHT = Accuracy(1e-10, 1e-10)


def sampled(count: int, seed: int = 0, weight: float = 1e-4, risk: CVaR | None = None) -> ScenarioProblem:
    nominal = poisson_2d(weight=weight)
    return scenarios_of(nominal, waves(nominal, count, 0.5), risk=risk, seed=seed)


@pytest.fixture(scope="module")
def problem() -> ScenarioProblem:
    return sampled(24)


@pytest.fixture(scope="module")
def way(problem: ScenarioProblem) -> list[Tensor]:
    """Controls on the way to the optimum, with decreasing steps."""
    best = optimum(problem).v
    return [(1.0 - 0.5**k) * best for k in range(12)]


def errors(problem: ScenarioProblem, oracle: Streaming, way: list[Tensor], seeds: int) -> tuple[Tensor, Tensor]:
    """The norms of the errors (seeds, steps) of gradients along a way, and the estimated norms."""
    expected = [exact(problem, v).derivative for v in way]
    true, estimated = [], []
    for seed in range(seeds):
        stream = problem_with_seed(problem, seed)
        state = oracle.init(stream, *stream.start())
        for v, full in zip(way, expected, strict=True):
            evaluation, state = oracle.evaluate(stream, v, state, TIGHT)
            true.append(problem.outer_metric.dual_norm((evaluation.derivative - full)[None]))
            estimated.append(evaluation.sampling_error)
    shape = seeds, len(way)
    return tuple(torch.tensor(each, dtype=torch.float64).reshape(shape) for each in (true, estimated))  # type: ignore


def problem_with_seed(problem: ScenarioProblem, seed: int) -> ScenarioProblem:
    """Another stream from the same scenarios."""
    first = 1_000_000 * seed
    stream = problem.stream
    assert stream is not None
    return replace(problem, stream=lambda start, count: stream(first + start, count))


def test_fresh_minibatches_are_unbiased(problem: ScenarioProblem, way: list[Tensor]) -> None:
    v, oracle = way[3], Streaming(natural(), 4, power=0.0, share=0.0)
    state, found = oracle.init(problem, *problem.start()), []
    for _ in range(150):
        evaluation, state = oracle.evaluate(problem, v, state, TIGHT)
        found.append(evaluation.derivative)
    expected = exact(problem, v).derivative
    generator = torch.Generator().manual_seed(2)
    functionals = torch.randn(5, problem.outer_size, generator=generator, dtype=torch.float64)
    numbers = torch.stack(found) @ functionals.T
    standard_errors = numbers.std(0) / math.sqrt(len(numbers))
    assert bool(((numbers.mean(0) - functionals @ expected).abs() < 3.0 * standard_errors).all())


def test_the_variance_of_fresh_minibatches_is_inverse_to_their_size(
    problem: ScenarioProblem, way: list[Tensor]
) -> None:
    v = way[3]
    x, y = [], []
    for batch in (2, 4, 8, 16):
        true, _ = errors(problem, Streaming(natural(), batch, power=0.0, share=0.0), [v], 60)
        x.append(math.log(batch))
        y.append(math.log(float(true.square().mean())))
    line = torch.tensor([x, [1.0] * len(x)], dtype=torch.float64).T
    slope = float(torch.linalg.lstsq(line, torch.tensor(y, dtype=torch.float64)[:, None]).solution[0])
    assert -1.2 < slope < -0.8


def test_recursive_momentum_is_better_than_larger_batches_and_improves(
    problem: ScenarioProblem, way: list[Tensor]
) -> None:
    momentum, estimated = errors(problem, Streaming(natural(), 4, share=0.0), way[:8], 20)
    # There are twice as many scenarios, because momentum evaluates each of them twice.
    plain, _ = errors(problem, Streaming(natural(), 8, power=0.0, share=0.0), way[7:8], 20)
    square, plain_square = momentum.square().mean(0), float(plain.square().mean())
    assert float(square[-1]) < 0.6 * plain_square
    assert float(square[0]) > 2.0 * float(square[2]) > 3.0 * float(square[-1])
    assert 0.7 < float(estimated.square().mean() / momentum.square().mean()) < 1.6


def test_the_stream_comes_near_the_optimum_and_estimates_its_value(problem: ScenarioProblem) -> None:
    best = optimum(problem)
    gaps: list[list[float]] = []
    covered = 0
    for seed in range(4):
        stream, iterates = problem_with_seed(problem, seed), list[Iterate]()
        minimise(stream, Streaming(natural(), 8), StochasticApproximation(), Stopping(iterations=60), iterates.append)
        kept = [exact(problem, iterates[k].evaluation.v).value / best.value - 1.0 for k in (1, 4, 15, 60)]
        gaps.append(kept)
        last = iterates[-1]
        error = last.evaluation.value - exact(problem, last.evaluation.v).value
        covered += abs(error) < 2.0 * math.sqrt(last.oracle.value_variance)
    mean = torch.tensor(gaps, dtype=torch.float64).mean(0)
    assert bool((mean[1:] < 0.4 * mean[:-1]).all())
    assert float(mean[-1]) < 1e-3
    assert covered >= 3


@pytest.mark.parametrize("rtol", [0.1, 0.02])
def test_a_stream_ends_when_the_gradient_is_certified(problem: ScenarioProblem, rtol: float) -> None:
    for seed in range(3):
        stream = problem_with_seed(problem, seed)
        found = minimise(stream, Streaming(natural(), 8), StochasticApproximation(), Stopping(rtol=rtol))
        assert found.status == "converged", found.message
        assert "for scenarios left out" in found.message
        last, goal = found.last, rtol * found.first.gradient_norm
        assert last.gradient_norm + 2.0 * last.evaluation.sampling_error <= goal
        true = exact(problem, last.evaluation.v).derivative
        assert problem.outer_metric.dual_norm(true[None]) <= goal


def test_a_stream_without_a_certified_gradient_goes_on(problem: ScenarioProblem) -> None:
    iterates: list[Iterate] = []
    stopping = Stopping(rtol=0.02, iterations=8)
    found = minimise(problem, Streaming(natural(), 4), StochasticApproximation(), stopping, iterates.append)
    assert found.status == "stopped" and "for scenarios left out" in found.message
    # The gradient estimates reached the goal earlier, without a certificate.
    assert any(each.gradient_norm <= 0.02 * found.first.gradient_norm for each in iterates[:-1])


def test_cvar_with_its_level_as_a_variable_comes_near_the_optimum_of_many_scenarios() -> None:
    risk = CVaR(0.8, smoothing=0.1, scale=6e-3)
    problem = sampled(200, weight=1e-3, risk=risk)
    reference = minimise(problem, SampleAverage("factors"), LBFGS(), Stopping(rtol=1e-6))
    assert reference.status == "converged"
    best = reference.last.evaluation
    states = reference.last.oracle.u
    values = torch.cat(
        [problem.part(each).scenario_values(states[each], best.v) for each in torch.arange(200).split(50)]
    )
    level = risk.level(values, problem.weights)
    assert level is not None
    oracle = SampleAverage("factors")
    state, gaps = oracle.init(problem, *problem.start()), []
    for seed in range(3):
        stream, iterates = problem_with_seed(problem, seed), list[Iterate]()
        # The tail has a larger curvature than the nominal scenario, so that steps are shorter.
        outer, steps = StochasticApproximation(step=0.3), Stopping(iterations=60)
        minimise(stream, Streaming(natural(), 16, power=0.7), outer, steps, iterates.append)
        assert iterates[-1].oracle.level == pytest.approx(level, abs=0.5 * risk.scale)
        for k in (4, 15, 60):
            evaluation, state = oracle.evaluate(problem, iterates[k].evaluation.v, state, Accuracy(1e-8, 1e-8))
            gaps.append(evaluation.value / best.value - 1.0)
    mean = torch.tensor(gaps, dtype=torch.float64).reshape(3, 3).mean(0)
    assert float(mean[0]) > 10.0 * float(mean[1]) > 50.0 * float(mean[2])
    assert float(mean[2]) < 2e-4


def test_the_memory_of_a_stream_does_not_depend_on_the_number_of_scenarios() -> None:
    held = []
    for count in (24, 96):
        problem = sampled(count)
        oracle = Streaming(natural(), 4)
        state = oracle.init(problem, *problem.start())
        for k in range(5):
            v = torch.full((problem.outer_size,), 1.0 + 0.1 * k, dtype=torch.float64)
            _, state = oracle.evaluate(problem, v, state, Accuracy(1e-3, 1e-3))
        held.append(numbers(oracle.save(state)))
    n, p = problem.inner_shape[1], problem.outer_size
    assert held[0] == held[1] < 12 * (n + p)


def numbers(saved: object) -> int:
    """The number of entries of the saved tensors, without the states of random generators."""
    if isinstance(saved, Tensor):
        return saved.numel() if saved.is_floating_point() else 0
    if isinstance(saved, dict):
        return sum(numbers(each) for each in saved.values())
    return sum(numbers(each) for each in saved) if isinstance(saved, list | tuple) else 0


def test_a_resumed_run_gives_the_same_numbers(problem: ScenarioProblem) -> None:
    for risk in (problem.risk, CVaR(0.8, scale=1e-2)):
        stream, oracle = replace(problem, risk=risk), Streaming(natural(), 4, power=0.7)
        state = oracle.init(stream, *stream.start())
        v = torch.ones(problem.outer_size, dtype=torch.float64)
        for k in range(3):
            _, state = oracle.evaluate(stream, (1.0 + 0.1 * k) * v, state, Accuracy(1e-4, 1e-4))
        again = restored(oracle, stream, state)
        assert again.drawn == 12
        for k in range(3):
            one, state = oracle.evaluate(stream, (2.0 - 0.1 * k) * v, state, Accuracy(1e-4, 1e-4))
            other, again = oracle.evaluate(stream, (2.0 - 0.1 * k) * v, again, Accuracy(1e-4, 1e-4))
            assert torch.equal(one.derivative, other.derivative) and one.value == other.value
            assert state.level == again.level and state.value_variance == again.value_variance


def test_risk_measures_that_are_not_expectations_are_refused(problem: ScenarioProblem) -> None:
    risky = replace(problem, risk=Entropic(2.0))
    with pytest.raises(ValueError, match="expected mean or cvar"):
        Streaming(natural()).init(risky, *risky.start())
    with pytest.raises(ValueError, match="expected at least 2 scenarios"):
        Streaming(natural(), batch=1)
