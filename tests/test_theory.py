"""The rates of the theory on a problem that satisfies its assumptions, and how far wrong algorithms are from them.

Slopes are those of mean squares over the number of steps: -1 in the theorems, 0 where an error has a floor. A band of a
half around -1 is two to three standard errors of these fits.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.regression import Regression
from benchmarks.theory import QUANTITIES, Errors, errors, exact_gaps, fitted, offset, outer_run, paper, point

COUNTS, RUNS = (200, 1600), (10, 4)
PROBLEM = Regression.of(8, 4)


def slope(found: Errors, name: str) -> float:
    shift = offset(PROBLEM) if name == "inner" else 0.0
    return fitted([count + shift for count in COUNTS], found[name]).value


def test_a_fit_has_the_slope_of_a_power_law_and_its_standard_error() -> None:
    generator = np.random.default_rng(0)
    x, numbers = [10.0, 100.0, 1000.0], (40, 20, 10)
    slopes = []
    for _ in range(200):
        samples = [list(a**-1.0 * generator.chisquare(8, size=n) / 8.0) for a, n in zip(x, numbers, strict=True)]
        slopes.append(fitted(x, samples))
    assert np.mean([each.value for each in slopes]) == pytest.approx(-1.0, abs=0.02)
    assert np.std([each.value for each in slopes]) == pytest.approx(np.mean([each.error for each in slopes]), rel=0.25)


@pytest.mark.parametrize("stretch", [0.0, 0.7])
def test_the_problem_is_what_it_says(stretch: float) -> None:
    """Fisher information, expectations of the samples, smoothness and derivative of Phi, each found in two ways."""
    problem = Regression.of(3, 2, stretch=stretch, condition=3.0)
    v, generator, count = point(problem), torch.Generator().manual_seed(0), 200_000
    u, w = problem.solution(v), torch.randn(1, 3, generator=generator, dtype=torch.float64)
    batch = problem.batch(u, v, problem.sample(count, generator))
    fisher = torch.linalg.inv(problem.inverse(v))
    error = 5.0 * float(fisher.norm()) / count**0.5 * 3.0
    assert (batch.scores @ batch.scores.T / count - fisher).abs().max() < error
    torch.testing.assert_close(problem.hessian_product(u, v, w), w @ fisher)
    away = u + 0.3
    batch = problem.batch(away, v, problem.sample(count, generator))
    assert (batch.gradient - problem.inner_gradient(away, v)).abs().max() < error
    assert (batch.cross(w) - problem.cross_product(away, v, w)).abs().max() < error
    x = problem.sample(count, generator).tests[0]
    fourth = (x.square().sum(1)[:, None] * x).T @ x / count
    torch.testing.assert_close(fourth, torch.diag(problem.smoothness), rtol=0.0, atol=0.02 * float(fourth.max()))
    for k in range(2):
        ahead, behind = (problem.reduced(v + s * torch.eye(2, dtype=torch.float64)[k]) for s in (1e-5, -1e-5))
        assert float(problem.exact(v)[k]) == pytest.approx((ahead - behind) / 2e-5, rel=1e-7)
    assert float(problem.exact(problem.optimum).norm()) < 1e-13


@pytest.mark.parametrize("name", QUANTITIES)
def test_after_one_loop_squared_errors_fall_with_the_number_of_steps(name: str, as_in_the_theorem: Errors) -> None:
    """The order of Theorem 4.7; the error itself, that of the hypergradient included, falls as 1 / sqrt(t)."""
    assert slope(as_in_the_theorem, name) == pytest.approx(-1.0, abs=0.5)


@pytest.fixture(scope="module")
def as_in_the_theorem() -> Errors:
    return errors(PROBLEM, paper, COUNTS, RUNS, warm=True)


def test_a_constant_weight_of_the_newest_score_leaves_a_floor(as_in_the_theorem: Errors) -> None:
    found = errors(PROBLEM, lambda t: paper(t, forgetting=0.02), COUNTS, RUNS, warm=True)
    assert slope(found, "inverse") > -0.4
    assert np.mean(found["inverse"][1]) > 5.0 * np.mean(as_in_the_theorem["inverse"][1])
    # The inner steps do not use the inverse.
    assert found["inner"] == as_in_the_theorem["inner"]


def test_a_constant_step_leaves_a_floor(as_in_the_theorem: Errors) -> None:
    """The floor of the inner error also makes the observed scores, and with them the inverse, wrong."""
    found = errors(PROBLEM, lambda t: paper(t, schedule=0.05), COUNTS, RUNS, warm=True)
    assert slope(found, "inner") > -0.4
    assert np.mean(found["inner"][1]) > 5.0 * np.mean(as_in_the_theorem["inner"][1])


def test_an_inverse_that_is_carried_over_gains_from_every_loop_and_a_restarted_one_does_not() -> None:
    """Up to the part of early scores, the squared error is that of one loop divided by the number of loops."""
    found = {}
    for restart in (True, False):
        runs = [outer_run(PROBLEM, paper(200, restart), 12, seed).inverses for seed in range(2)]
        found[restart] = np.mean(runs, axis=0)
    assert found[True][8:].mean() > 0.5 * found[True][1:4].mean()
    assert found[False][8:].mean() < 0.4 * found[True][8:].mean()


def test_strongly_convex_outer_problems_converge_linearly_to_a_floor() -> None:
    """The factor is that of exact gradients, and the floor falls with the number of inner steps."""
    runs = {steps: outer_run(PROBLEM, paper(steps), 16) for steps in (50, 400)}
    exact = exact_gaps(PROBLEM, 6)
    factor = (runs[400].gaps[5] / runs[400].gaps[1]) ** 0.25
    assert factor == pytest.approx((exact[5] / exact[1]) ** 0.25, rel=0.25)
    floors = {steps: run.gradients[8:].mean() for steps, run in runs.items()}
    assert floors[400] < 0.35 * floors[50], "1/8 up to sampling errors"
    assert math.isfinite(floors[50]) and floors[50] < 0.2 * runs[50].gradients[0]


def test_the_other_outer_problem_is_not_convex_and_its_mean_squared_gradient_falls_as_one_over_k() -> None:
    problem = Regression.of(8, 4, convex=False, weight=0.01, stretch=0.5)
    v = problem.start()[1]
    hessian = torch.autograd.functional.hessian(
        lambda v: problem.outer_loss(problem.slope @ v + problem.offset, v), v, create_graph=False
    )
    assert float(torch.linalg.eigvalsh(hessian)[0]) < -0.1
    gradients = outer_run(problem, paper(200), 40).gradients
    means = np.cumsum(gradients) / np.arange(1, len(gradients) + 1)
    assert means[39] < 0.65 * means[19] < 0.65 * 0.75 * means[9]
