"""The options of arXiv 2602.10905: observed scores of single samples, sampled cross derivatives, its step sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bilevel_problems import Explicit, cubic_problem, least_squares, seeded
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.hypergradient import hypergradient
from nhgd_pde.engine.inner_loop import InnerOptions, InnerState, solve_inner
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy
from problems import slope

POISSON = {
    "name": "small",
    "mesh": {"kind": "rectangle", "cells": [6, 6]},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "sin(2*pi*x)*sin(2*pi*y) + x*y"},
        {"kind": "regularisation", "weight": 1e-4},
    ],
}


def test_the_hypergradient_of_a_sampled_inverse_converges_at_the_monte_carlo_rate() -> None:
    """The error decreases as 1/sqrt(T) over two decades of samples."""
    problem = cubic_problem(n=6)
    _, v = problem.start()
    v = v + 0.3
    u = problem.solution(v)
    _, exact = problem.exact(v)
    counts = [200, 632, 2000, 6325, 20000]

    def error(count: int, seed: int) -> float:
        backend = Dense("identity", prior_weight=1e-6)
        inverse = backend.init(problem, u, v)
        for scores in problem.batch(u, v, problem.sample(count, seeded(seed))).scores.split(100, dim=1):
            inverse = backend.absorb(inverse, scores)
        found = hypergradient(problem, u, v, inverse, None, None)
        return float((found.derivative - exact).norm() / exact.norm())

    errors = [float(np.sqrt(np.mean([error(count, seed) ** 2 for seed in range(20)]))) for count in counts]
    assert slope([float(count) for count in counts], errors) == pytest.approx(-0.5, abs=0.1)
    assert errors[-1] < 0.03


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_fresh_cross_derivatives_are_unbiased_with_variance_one_over_their_number(scale: float) -> None:
    problem = cubic_problem(n=6)
    _, v = problem.start()
    v = v + 0.3 * scale
    u = problem.solution(v)
    _, exact = problem.exact(v)
    inverse = Factored().init(problem, u, v)

    def derivative(count: int, seed: int) -> Tensor:
        cross = problem.batch(u, v, problem.sample(count, seeded(seed))).cross
        return hypergradient(problem, u, v, inverse, None, 1e-12, 100, cross).derivative

    mean = torch.stack([derivative(50, seed) for seed in range(400)])
    standard_error = mean.std(0) / 20.0
    assert ((mean.mean(0) - exact).abs() < 4.0 * standard_error).all()
    spread = [torch.stack([derivative(count, seed) for seed in range(200)]).var(0).sum() for count in (10, 160)]
    assert float(spread[0] / spread[1]) == pytest.approx(16.0, rel=0.35)


@pytest.mark.parametrize("problem", [least_squares(n=5), cubic_problem(n=5)])
def test_a_running_cross_derivative_is_the_mean_over_the_batches_of_the_loop(problem: Explicit) -> None:
    u, v = problem.start()
    v = v + 0.5
    backend, q = Dense(), torch.ones(problem.inner_shape, dtype=torch.float64)
    options = InnerOptions(tests=8, steps=3, keep_cross=True)

    def start() -> InnerState:
        return InnerState(u, backend.init(problem, u, v))

    whole = solve_inner(problem, v, start(), backend, options, 1e-14, seeded(0))
    state, generator, one_by_one = start(), seeded(0), []
    for _ in range(3):
        step = solve_inner(problem, v, state, backend, replace(options, steps=1), 1e-14, generator)
        state = step.state
        assert step.cross is not None
        one_by_one.append(step.cross(q))
    assert whole.cross is not None
    torch.testing.assert_close(whole.cross(q), torch.stack(one_by_one).mean(0))

    oracle = NHGD(options, backend, HypergradientOptions(cross="running"))
    evaluation, after = oracle.evaluate(problem, v, oracle.init(problem, u, v), Accuracy(1e-14, 1e-10))
    direct = problem.outer_derivatives(after.u, v)[1]
    assert after.q is not None
    torch.testing.assert_close(evaluation.derivative, direct - whole.cross(after.q))


def test_the_cross_derivative_of_the_energy_form_needs_no_samples() -> None:
    expected, running, fresh = (
        nhgd.solve(nhgd.load(POISSON, {"hypergradient.cross": cross, "inner.tests": 8, "curvature.kind": "dense"}))
        for cross in ("expected", "running", 4)
    )
    assert expected.status == running.status == fresh.status == "converged"
    assert running.objective == pytest.approx(expected.objective, rel=1e-10)
    assert fresh.objective == pytest.approx(expected.objective, rel=1e-10)


def test_the_error_of_sampled_cross_derivatives_falls_with_their_number() -> None:
    """In the residual form with everything else exact, the error of the derivative is only their noise."""
    errors = []
    for count in (16, 256, 4096):
        overrides = {"inner.model": "residual", "hypergradient.cross": count, "outer.iterations": 1}
        found, exact = (nhgd.solve(nhgd.load(POISSON, {**overrides, **more})) for more in ({}, {"method": "adjoint"}))
        first = [solution.history[0]["gradient_norm"] for solution in (found, exact)]
        errors.append(abs(first[0] / first[1] - 1.0))  # type: ignore[operator]
    assert errors[0] > 4.0 * errors[2] and errors[2] < 0.1


# Observed scores


SMALL_SIGMA = {"curvature.kind": "dense", "inner.tests": 16, "curvature.scores": "observed", "inner.noise": 1e-3}


@pytest.mark.parametrize("model", ["energy", "residual"])
def test_noise_that_is_too_small_for_observed_scores_causes_a_warning(model: str) -> None:
    small, matched, scored = (
        nhgd.solve(nhgd.load(POISSON, {**SMALL_SIGMA, "inner.model": model, "outer.iterations": 2, **more}))
        for more in ({}, {"inner.noise": "matched"}, {"curvature.scores": "model"})
    )
    # A run that fails reports the reason, and a run that goes on gives a warning.
    (warning,) = small.stats["warnings"] or [small.message]
    assert "inner.noise to matched" in warning and "observed scores" in warning
    assert not matched.stats["warnings"] and not scored.stats["warnings"]


def test_the_warning_has_the_inflation_of_the_fisher_information() -> None:
    """F of observed scores is that of the model plus terms of the size of the squared tested residual."""
    problem = nhgd.load(POISSON, {"inner.model": "residual", "curvature.scores": "observed", "inner.noise": 0.01}).pde
    u, v = problem.start()
    v = v + 1.0
    batch = problem.batch(u, v, problem.sample(20000, seeded(0)))
    model = nhgd.load(POISSON, {"inner.model": "residual"}).pde
    plain = model.batch(u, v, model.sample(20000, seeded(1)))
    direction = problem.inner_metric.gradient(problem.inner_gradient(u, v)).reshape(-1)
    seen, meant = ((each.scores.T @ direction).square().mean() for each in (batch, plain))
    # Along the residual the factor is 3, because E z^4 = 3 for a normal variable.
    assert float(seen / meant) == pytest.approx(1.0 + 3.0 * batch.inflation, rel=0.1)
    assert batch.inflation > 10.0


def test_single_observed_scores_give_the_rank_one_formula() -> None:
    """A+ = [A - A s s^T A / ((1 - beta) / beta + s^T A s)] / (1 - beta), Sherman and Morrison."""
    problem = cubic_problem(n=5)
    u, v = problem.start()
    backend = Dense("identity", prior_weight=3.0)
    state = backend.init(problem, u, v)
    a, generator = state.inverse.clone(), seeded(0)
    for t in range(6):
        scores = problem.batch(u, v, problem.sample(1, generator)).scores
        state = backend.absorb(state, scores)
        beta, image = 1.0 / (3.0 + t + 1.0), a @ scores
        a = (a - image @ image.T / ((1.0 - beta) / beta + float(scores.T @ image))) / (1.0 - beta)
    torch.testing.assert_close(state.inverse, a)
    forgetting = Dense("identity", prior_weight=3.0, forgetting=0.2)
    state = forgetting.init(problem, u, v)
    image = state.inverse @ scores
    expected = (state.inverse - image @ image.T / (4.0 + float(scores.T @ image))) / 0.8
    torch.testing.assert_close(forgetting.absorb(state, scores).inverse, expected)


def test_the_algorithm_of_the_paper_runs_from_a_problem_file() -> None:
    """Single observed samples, SGD with its step sizes, identity prior, running cross derivative, no refinement."""
    letter = {
        "inner.model": "residual",
        "inner.tests": 1,
        "inner.steps": 200,
        "inner.optimiser": "sgd",
        "inner.noise": "matched",
        "curvature.kind": "dense",
        "curvature.prior": "identity",
        "curvature.scores": "observed",
        "hypergradient.refine": "off",
        "hypergradient.cross": "running",
        "outer.method": "gradient",
        "outer.step": 30,
        "outer.iterations": 20,
    }
    found = nhgd.solve(nhgd.load(POISSON, letter))
    assert found.status == "stopped" and "200 scores" not in found.stats["curvature"]
    # At v = 0 the state is zero, and the inverse does not use steps that are taken back.
    assert int(found.stats["curvature"].split()[5].replace(",", "")) >= 15 * 200
    assert found.objective < 0.95 * found.stats["objective_initial"]


def test_a_preset_gives_way_to_the_keys_of_a_file() -> None:
    spec = nhgd.load(
        {**POISSON, "preset": "paper", "inner": {"tests": 8, "steps": 2}, "outer": {"step": 1.0}}
    ).file.spec
    assert (spec.inner.optimiser, spec.inner.metric, spec.inner.tests) == ("sgd", "identity", 8)
    assert (spec.curvature.kind, spec.curvature.prior, spec.curvature.scores) == ("dense", "identity", "observed")
    assert (spec.hypergradient.refine, spec.hypergradient.debias, spec.hypergradient.cross) == ("off", False, "running")
    assert nhgd.load({**POISSON}).file.spec.hypergradient.debias


def test_the_raw_estimator_is_the_inverse_times_the_derivative() -> None:
    problem = cubic_problem(n=5)
    u, v = problem.start()
    v = v + 0.3
    backend = Dense("identity", prior_weight=1.0, regularisation=4.0)
    inverse = backend.init(problem, u, v)
    torch.testing.assert_close(inverse.inverse, torch.eye(u.numel(), dtype=torch.float64) / 4.0)
    inverse = backend.absorb(inverse, problem.batch(u, v, problem.sample(200, seeded(1))).scores)
    inner, _ = problem.outer_derivatives(u, v)
    raw, corrected = (hypergradient(problem, u, v, inverse, None, None, debias=each).q for each in (False, True))
    torch.testing.assert_close(raw, inverse.solve(inner))
    torch.testing.assert_close(corrected, raw * inverse.unbiased(u.numel()))
    assert inverse.unbiased(u.numel()) < 0.99


def test_a_restarted_inverse_knows_the_scores_of_one_loop_only() -> None:
    problem = least_squares(n=5)
    u, v = problem.start()
    samples = {}
    for restart in (False, True):
        method = NHGD(InnerOptions(tests=8, steps=3), Dense("identity", 1.0), HypergradientOptions(), restart=restart)
        state = method.init(problem, u, v)
        for shift in (0.1, 0.2, 0.3):
            _, state = method.evaluate(problem, v + shift, state, Accuracy(1e-12, 1e-8))
        samples[restart] = state.inner.curvature.samples
    assert samples == {False: 3 * samples[True], True: 24}


def test_sgd_in_the_plain_inner_product_takes_steps_along_the_gradient() -> None:
    problem = least_squares(n=5)
    u, v = problem.start()
    options = InnerOptions(tests=4, steps=1, optimiser="sgd", metric="identity", schedule=0.01)
    backend = Dense("identity", 1.0)
    state = InnerState(u, backend.init(problem, u, v))
    moved = solve_inner(problem, v, state, backend, options, 1e-12, seeded(3)).state.u
    gradient = problem.batch(u, v, problem.sample(4, seeded(3))).gradient
    torch.testing.assert_close(moved, u - 0.01 * gradient)


def test_the_steps_of_the_paper_begin_anew_in_every_loop() -> None:
    problem = least_squares(n=5)
    u, v = problem.start()
    options, backend = InnerOptions(tests=4, steps=3, optimiser="sgd"), Dense("identity", 1.0)
    moved = [
        solve_inner(
            problem, v, InnerState(u, backend.init(problem, u, v), steps=before), backend, options, 1e-12, seeded(3)
        ).state.u
        for before in (0, 1000)
    ]
    torch.testing.assert_close(moved[0], moved[1], rtol=0.0, atol=0.0)
    assert bool((moved[0] != u).any())


def test_a_factored_inverse_has_nothing_to_restart() -> None:
    with pytest.raises(nhgd.ProblemError, match=r"curvature\.restart: expected never: a factored inverse"):
        nhgd.load({**POISSON, "curvature": {"restart": "outer"}})


def test_two_roles_restart_the_inverse_as_one() -> None:
    file = {
        **POISSON,
        "preset": "paper",
        "inner": {"tests": 16, "steps": 4, "noise": "matched"},
        "curvature": {"restart": "outer"},
        "outer": {"step": 1.0, "iterations": 3},
    }
    one, two = (nhgd.solve(nhgd.load(file), roles=roles) for roles in (1, 2))
    assert two.control == pytest.approx(one.control, rel=1e-10, abs=1e-14)


def test_lambda_belongs_to_a_dense_inverse_from_the_identity() -> None:
    with pytest.raises(nhgd.ProblemError, match=r"curvature\.lambda: expected auto, or a dense inverse"):
        nhgd.load({**POISSON, "curvature": {"lambda": 2.0}})


@pytest.mark.slow
def test_the_algorithm_of_the_paper_comes_close_to_the_optimum_on_a_problem_where_it_works() -> None:
    path, defaults = "problems/poisson_nhgd_paper.yaml", {"preset": None, "inner": {}, "curvature": {}, "outer": {}}
    found = nhgd.solve(nhgd.load(path))
    exact = nhgd.load(path, defaults)
    best, reduced = nhgd.solve(exact).objective, nhgd.reduced(exact)
    gap = (reduced.value(found.control) - best) / (reduced.value(reduced.start) - best)
    assert found.stats["state_dofs"] == 196 and 0.0 <= gap < 1e-2, gap
