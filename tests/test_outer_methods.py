from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
import torch
from bilevel_problems import Function, diagonal_riesz, normal, quadratic_function, riesz, rosenbrock, seeded, spd
from torch import Tensor

from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.outer.adam import Adam
from nhgd_pde.engine.outer.base import Feasible, OuterMethod
from nhgd_pde.engine.outer.gradient import GradientDescent
from nhgd_pde.engine.outer.lbfgs import LBFGS, LBFGSState
from nhgd_pde.engine.outer.line_search import LineSearch, exact_share
from nhgd_pde.engine.outer.reduced_objective import Evaluation
from problems import relative

NAN = float("nan")


# L-BFGS without bounds


@pytest.mark.parametrize("size", [2, 6, 20])
def test_lbfgs_minimises_rosenbrock(size: int) -> None:
    function = rosenbrock(size)
    minimum, _ = function.minimise(LBFGS(), Stopping(rtol=1e-8))
    assert minimum.status == "converged"
    assert minimum.last.gradient_norm <= 1e-8 * minimum.first.gradient_norm
    # The known minimum, or the local one near (-1, 1, ..., 1) that exists from four variables on.
    assert minimum.last.evaluation.value < (1e-12 if size == 2 else 4.0)
    assert len(function.tried) < 1.3 * minimum.last.iteration + 10


@pytest.mark.parametrize("quadratic", [True, False])
def test_lbfgs_solves_an_ill_conditioned_quadratic(quadratic: bool) -> None:
    function, hessian, linear = quadratic_function(20, 1e6, seed=1, quadratic=quadratic)
    minimum, _ = function.minimise(LBFGS(memory=40), Stopping(iterations=1000, rtol=1e-8))
    assert minimum.status == "converged"
    assert relative(hessian @ minimum.last.evaluation.v, linear) < 1e-6


def conjugate_gradient_iterates(function: Function, hessian: Tensor, linear: Tensor, count: int) -> list[Tensor]:
    """The textbook method with the inverse Gram matrix as preconditioner."""
    v, r = function.first, linear - hessian @ function.first
    p = z = function.outer_metric.gradient(r[None])[0]
    iterates = [v]
    for _ in range(count):
        alpha = (r @ z) / (p @ hessian @ p)
        v, after = v + alpha * p, r - alpha * (hessian @ p)
        next_z = function.outer_metric.gradient(after[None])[0]
        p = next_z + (after @ next_z) / (r @ z) * p
        r, z = after, next_z
        iterates.append(v)
    return iterates


@pytest.mark.parametrize("memory", [1, 20])
def test_on_a_quadratic_lbfgs_is_the_conjugate_gradient_method(memory: int) -> None:
    function, hessian, linear = quadratic_function(40, 1e3)
    _, told = function.minimise(LBFGS(memory), Stopping(iterations=10, rtol=0.0))
    expected = conjugate_gradient_iterates(function, hessian, linear, 10)
    assert [iterate.iteration for iterate in told] == list(range(11))
    for iterate, v in zip(told[1:], expected[1:], strict=True):
        assert relative(iterate.evaluation.v, v) < 1e-8
        assert iterate.evaluations == iterate.iteration + 1


def test_on_a_quadratic_of_twelve_variables_lbfgs_ends_in_twelve_iterations() -> None:
    for seed in range(5):
        function, hessian, linear = quadratic_function(12, 1e3, seed)
        minimum, told = function.minimise(LBFGS(), Stopping(rtol=1e-10))
        assert minimum.status == "converged" and minimum.last.iteration <= 14
        assert relative(minimum.last.evaluation.v, torch.linalg.solve(hessian, linear)) < 1e-9
        # The end of the run takes one evaluation, which the callback gets once.
        assert not minimum.last.evaluation.blended and torch.equal(function.tried[-1], minimum.last.evaluation.v)
        assert [iterate.iteration for iterate in told] == list(range(len(told)))


def test_on_a_quadratic_rounding_costs_few_iterations() -> None:
    # Steps may end between two evaluations; a smaller first guess of the inverse Hessian takes 200 iterations.
    function, _, _ = quadratic_function(40, 1e3)
    minimum, _ = function.minimise(LBFGS(), Stopping(iterations=100, rtol=1e-10))
    assert minimum.status == "converged"


@pytest.mark.parametrize("outer", [LBFGS(), GradientDescent()])
def test_a_change_of_variables_with_its_metric_changes_nothing(outer: OuterMethod) -> None:
    change = normal(seeded(3), 6, 6) + 3.0 * torch.eye(6, dtype=torch.float64)
    function = rosenbrock(6)
    histories = []
    for problem in (function, function.transformed(change)):
        _, told = problem.minimise(outer, Stopping(iterations=15, rtol=0.0))
        histories.append([iterate.evaluation.value for iterate in told])
    assert histories[0] == pytest.approx(histories[1], rel=1e-8)
    euclidean = replace(function, outer_metric=riesz(torch.eye(6, dtype=torch.float64)), tried=[])
    _, told = euclidean.minimise(outer, Stopping(iterations=15, rtol=0.0))
    assert told[-1].evaluation.value != pytest.approx(histories[0][-1], rel=1e-3)


# Bounds


def box_problem(seed: int, size: int, width: float, condition: float = 1e3) -> tuple[Function, Tensor]:
    """A box-constrained quadratic in a diagonal metric and its solution by an active-set method."""
    g = seeded(100 + seed)
    weights = torch.logspace(-1.0, 1.0, size, dtype=torch.float64)
    function, hessian, linear = quadratic_function(size, condition, seed, diagonal_riesz(weights), quadratic=True)
    scale = width * torch.linalg.solve(hessian, linear).abs().max()
    lower, upper = (sign * scale * torch.rand(size, generator=g, dtype=torch.float64) for sign in (-1.0, 1.0))
    factor = torch.linalg.cholesky(hessian)
    solution = scipy.optimize.lsq_linear(
        factor.T.numpy(),
        torch.linalg.solve(factor, linear).numpy(),
        (lower.numpy(), upper.numpy()),
        method="bvls",
        tol=1e-15,
    )
    return replace(function, bounds=(lower, upper)), torch.from_numpy(solution.x)


@pytest.mark.parametrize("outer", [LBFGS(), LBFGS(step=1e4), LBFGS(step=1e-4)])
@pytest.mark.parametrize("size", [1, 2, 20])
def test_lbfgs_with_bounds_reaches_the_solution_of_the_active_set_method(outer: LBFGS, size: int) -> None:
    for seed, width in enumerate((0.01, 0.1, 0.3, 1.0)):
        function, expected = box_problem(seed, size, width)
        lower, upper = function.bounds
        for first in (function.first, lower, upper):
            problem = replace(function, first=first, tried=[])
            minimum, told = problem.minimise(outer, Stopping(iterations=400, rtol=1e-9))
            assert minimum.status == "converged", minimum.message
            assert relative(minimum.last.evaluation.v, expected) < 1e-6
            values = [iterate.evaluation.value for iterate in told]
            assert all(b <= a + 2e-9 * abs(a) for a, b in pairwise(values))
            assert all(((v >= lower) & (v <= upper)).all() for v in problem.tried)


def test_bounds_of_which_all_or_none_are_active() -> None:
    function, hessian, linear = quadratic_function(10, 10.0, 0, diagonal_riesz(torch.ones(10, dtype=torch.float64)))
    far = torch.full((10,), 1e3, dtype=torch.float64)
    loose, _ = replace(function, bounds=(-far, far)).minimise(LBFGS())
    assert relative(loose.last.evaluation.v, torch.linalg.solve(hessian, linear)) < 1e-7
    # In this corner every component of the derivative points into the bounds.
    corner = torch.linalg.solve(hessian, linear) - torch.linalg.solve(hessian, torch.ones(10, dtype=torch.float64))
    tight, told = replace(function, bounds=(corner - 1.0, corner), first=corner - 1.0).minimise(LBFGS())
    assert tight.status == "converged" and torch.equal(tight.last.evaluation.v, corner)
    again, told = replace(function, bounds=(corner - 1.0, corner), first=corner).minimise(LBFGS())
    assert again.status == "converged" and again.last.iteration == 0 and len(told) == 1


def test_bounds_need_a_diagonal_metric() -> None:
    size = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="diagonal"):
        Feasible(riesz(spd(3, 10.0, seeded(0))), (-size, size))


# Points that cannot be evaluated


@pytest.mark.parametrize("step", [10.0, 1e10])
def test_trial_points_outside_the_domain_shorten_the_step(step: float) -> None:
    centre = torch.tensor([0.6, -0.3, 0.2], dtype=torch.float64)

    def value(v: Tensor) -> Tensor:
        # The value is infinite on the unit sphere and NaN beyond.
        return -torch.log(1.0 - v @ v) + 50.0 * (v - centre) @ (v - centre)

    function = Function(value, torch.zeros(3, dtype=torch.float64), riesz(spd(3, 10.0, seeded(0))))
    minimum, told = function.minimise(LBFGS(step=step))
    assert minimum.status == "converged" and minimum.last.gradient_norm <= 1e-8 * told[0].gradient_norm
    assert any(float(v @ v) >= 1.0 for v in function.tried)


def undescendable(v: Tensor) -> Tensor:
    """1 - sum v with a derivative of the wrong sign."""
    return 1.0 + v.sum() - 2.0 * v.detach().sum()


@pytest.mark.parametrize("outer", [LBFGS(), GradientDescent()])
def test_a_run_without_descent_is_stopped_and_without_values_failed(outer: OuterMethod) -> None:
    metric, zero = riesz(torch.eye(2, dtype=torch.float64)), torch.zeros(2, dtype=torch.float64)
    stuck, told = Function(undescendable, zero, metric).minimise(outer)
    assert stuck.status == "stopped" and stuck.last.iteration == 0 and len(told) == 1
    assert "negative gradient; relative gradient 1.0e+00" in stuck.message
    missing, told = Function(lambda v: v.sum() * NAN, zero, metric).minimise(outer)
    assert missing.status == "failed" and missing.message == "at the starting point: outside the domain"
    assert told == []
    alone = Function(lambda v: v.sum() + torch.where((v == 0.0).all(), 0.0, NAN), zero, metric)
    nowhere, _ = alone.minimise(outer)
    assert nowhere.status == "failed" and nowhere.message == "every step tried fails: outside the domain"


def test_an_exhausted_search_starts_again_without_pairs_once() -> None:
    function, _, _ = quadratic_function(4, 10.0, quadratic=False)
    space, method = function.space, LBFGS()
    state: LBFGSState = method.init(space, evaluated(function, function.first))
    while len(state.pairs) < 2:
        state = method.update(space, state, evaluated(function, method.propose(space, state)[0]))
    best, trials = state.best, 0
    while state.pairs:
        state = method.update(space, state, replace(best, v=method.propose(space, state)[0], value=NAN))
        trials += 1
    assert state.best is best and not state.accepted and not state.failure and trials == 25
    assert torch.allclose(state.direction, -best.gradient)
    while not state.failure:
        state = method.update(space, state, replace(best, v=method.propose(space, state)[0], value=NAN))
        trials += 1
    assert state.best is best and trials == 50


def evaluated(function: Function, v: Tensor) -> Evaluation:
    evaluation, _ = function.evaluate(function, v, function.init(function, v, v), None)
    return evaluation


# Gradient descent


def test_gradient_descent_with_its_own_steps_converges() -> None:
    function, hessian, linear = quadratic_function(10, 100.0, quadratic=False)
    minimum, _ = function.minimise(GradientDescent(), Stopping(iterations=1000, rtol=1e-8))
    assert minimum.status == "converged"
    assert relative(minimum.last.evaluation.v, torch.linalg.solve(hessian, linear)) < 1e-6
    bounded, expected = box_problem(0, 10, 0.3, condition=10.0)
    minimum, _ = bounded.minimise(GradientDescent(), Stopping(iterations=1000, rtol=1e-9))
    assert minimum.status == "converged" and relative(minimum.last.evaluation.v, expected) < 1e-6


def test_gradient_descent_with_a_constant_step_equals_the_recursion() -> None:
    function, hessian, linear = quadratic_function(6, 10.0)
    minimum, told = function.minimise(GradientDescent(step=0.03), Stopping(iterations=20, rtol=0.0))
    gram = function.outer_metric.covector(torch.eye(6, dtype=torch.float64))
    v = function.first
    for iterate in told:
        assert torch.allclose(iterate.evaluation.v, v, rtol=0.0, atol=1e-14)
        v = v - 0.03 * torch.linalg.solve(gram, hessian @ v - linear)
    assert minimum.status == "stopped" and minimum.message.startswith("20 outer iterations ended")


@pytest.mark.parametrize("radius", [math.inf, 1e3])
def test_a_constant_step_that_is_too_long_fails_with_the_last_good_iterate(radius: float) -> None:
    function, _, _ = quadratic_function(6, 10.0)
    inside = function.value
    function.value = lambda v: torch.where(v.norm() < radius, inside(v), NAN)
    minimum, told = function.minimise(GradientDescent(step=50.0))
    assert minimum.status == "failed"
    reason = "a smaller step is needed" if radius == math.inf else "outside the domain"
    assert reason in minimum.message
    assert minimum.last is told[-1] and minimum.last.evaluation.finite


# Adam


def test_adam_takes_the_steps_of_torch_with_riesz_representatives() -> None:
    function, _, _ = quadratic_function(6, 10.0)
    _, told = function.minimise(Adam(step=0.05, relative_floor=1e-3), Stopping(iterations=40, rtol=0.0))
    v = function.first.clone().requires_grad_()
    floor = 1e-3 * float(told[0].evaluation.gradient.abs().max())
    peer = torch.optim.Adam([v], lr=0.05, eps=floor)
    for iterate in told:
        assert torch.allclose(iterate.evaluation.v, v.detach(), rtol=0.0, atol=1e-12)
        (derivative,) = torch.autograd.grad(function.value(v), v)
        v.grad = function.outer_metric.gradient(derivative[None])[0]
        peer.step()
    assert [iterate.step for iterate in told[1:]] == [0.05] * 40


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_adam_with_defaults_comes_close_at_any_scale_of_the_objective(scale: float) -> None:
    function, hessian, linear = quadratic_function(10, 100.0)
    inside = function.value
    function.value = lambda v: scale * inside(v)
    minimum, _ = function.minimise(Adam(), Stopping(iterations=300))
    assert relative(minimum.last.evaluation.v, torch.linalg.solve(hessian, linear)) < 1e-3
    assert len(function.tried) == 301


def test_adam_stays_between_bounds() -> None:
    function, expected = box_problem(0, 10, 0.3, condition=10.0)
    lower, upper = function.bounds
    minimum, _ = function.minimise(Adam(), Stopping(iterations=500))
    assert all(((v >= lower) & (v <= upper)).all() for v in function.tried)
    assert relative(minimum.last.evaluation.v, expected) < 1e-2
    assert torch.equal(minimum.last.evaluation.v == lower, expected <= lower)


def test_a_step_of_adam_that_is_too_long_fails_with_the_last_good_iterate() -> None:
    function, _, _ = quadratic_function(6, 10.0)
    minimum, told = function.minimise(Adam(step=1e6))
    assert minimum.status == "failed" and "a smaller step is needed" in minimum.message
    assert minimum.last is told[-1] and minimum.last.evaluation.finite


# The line search


def random_functions(count: int) -> list[tuple[np.ndarray, float]]:
    """Amplitudes and phases of waves, and a first trial step."""
    g = np.random.default_rng(0)
    return [(g.standard_normal((2, 4)) * 3.0, float(10.0 ** g.uniform(-4, 4))) for _ in range(count)]


def wave(coefficients: np.ndarray, t: float) -> tuple[float, float]:
    """phi(t) = t^2 / 20 +- sum a_k sin(k t + b_k) and its slope, with the sign that makes phi'(0) < 0."""
    amplitude, shift = coefficients
    k = np.arange(1, 5)
    sign = -np.sign((amplitude * k * np.cos(shift)).sum())
    value = 0.05 * t**2 + sign * (amplitude * np.sin(k * t + shift)).sum()
    return value, 0.1 * t + sign * (amplitude * k * np.cos(k * t + shift)).sum()


def test_accepted_steps_satisfy_the_weak_wolfe_conditions() -> None:
    most = 0
    for coefficients, trial in random_functions(300):
        value, slope = wave(coefficients, 0.0)
        search = LineSearch.start(value, slope, trial)
        while True:
            t = search.trial
            at, at_slope = wave(coefficients, t)
            found = search.judge(at, at_slope, noise=0.0)
            if found is None:
                break
            search = found
            assert not search.exhausted and search.low < search.trial < search.high
        assert at <= value + 1e-4 * t * slope and at_slope >= 0.9 * slope
        most = max(most, search.trials)
    assert most < 20


def test_within_the_noise_of_values_the_slope_decides() -> None:
    # phi = 1 + (t - 1)^2 / 1e14, with rounding errors of the values that are larger than the decrease.
    def slope(t: float) -> float:
        return 2e-14 * (t - 1.0)

    search = LineSearch.start(1.0, slope(0.0), 1.0)
    assert search.judge(1.0 + 4e-13, slope(1.0), noise=1e-12) is None
    assert search.judge(1.0 + 4e-12, slope(1.0), noise=1e-12) is not None
    assert search.judge(1.0 + 4e-13, slope(1.0), noise=0.0) is not None
    too_far = replace(search, trial=2.5).judge(1.0 - 4e-13 + 5e-13, slope(2.5), noise=1e-12)
    assert too_far is not None and too_far.high == 2.5


def test_a_trial_point_that_is_not_finite_shortens_the_step_strongly() -> None:
    search = LineSearch.start(1.0, -1.0, 8.0)
    for value, slope in ((NAN, 1.0), (math.inf, 1.0), (0.5, NAN)):
        found = search.judge(value, slope, noise=0.0)
        assert found is not None and found.trial == pytest.approx(0.8)


def test_exact_share_minimises_a_quadratic() -> None:
    assert exact_share(-2.0, 2.0) == 0.5
    assert exact_share(-2.0, -1.0) == 2.0
    assert exact_share(-2.0, -2.0) is None
    assert exact_share(-2.0, -3.0) is None
    assert exact_share(-1.0, -1.0 + 1e-9) is None


def test_a_projected_step_that_does_not_descend_may_not_ascend() -> None:
    # The projected step has a positive slope, for which the condition of sufficient decrease must not allow an
    # increase.
    search = LineSearch.start(1.0, -1.0, 1.0, wolfe=False)
    found = search.judge(1.0 + 1e-6, 0.5, noise=0.0, moved=0.5)
    assert found is not None and found.trial == pytest.approx(0.1)
    assert search.judge(1.0 - 1e-6, 0.5, noise=0.0, moved=0.5) is None
