"""Compared methods that draw samples: means, noise, limits."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from bilevel_problems import Explicit, cubic_problem, least_squares, normal, seeded
from hypergradients import EXACT, adjoint, at, dense, error, gap, solved
from torch import Tensor

from nhgd_pde.choice.compared_methods import METHODS
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.oracle import Oracle
from nhgd_pde.engine.outer.gradient import GradientDescent
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.methods.amigo import AmIGO
from nhgd_pde.methods.nbo import NBOGD, NSBOSGD
from nhgd_pde.methods.neumann import Neumann
from nhgd_pde.methods.saba import SABA
from nhgd_pde.methods.soba import SOBA
from nhgd_pde.methods.stocbio import StocBiO
from nhgd_pde.methods.truncated_cg import TruncatedCG


def spread(problem: Explicit, oracle: Any, v: Tensor, u: Tensor, count: int) -> tuple[Tensor, ...]:
    """Means and standard errors of the hypergradient, u and q over seeds."""
    state = oracle.init(problem, u, v)
    found = []
    for seed in range(count):
        evaluation, after = oracle.evaluate(problem, v, replace(state, generator=seeded(seed)), EXACT)
        found.append(torch.cat([evaluation.derivative, after.u.reshape(-1), after.q.reshape(-1)]))
    rows = torch.stack(found)
    return rows.mean(0), rows.std(0) / math.sqrt(count)


def test_stocbio_has_the_mean_of_a_neumann_series() -> None:
    problem = cubic_problem(n=4, p=3)
    v, u = solved(problem)
    step, p = 0.2 / float(dense(problem, u, v)[2][-1]), problem.outer_size
    oracle = StocBiO(tests=32, inner_steps=3, inner_step=step, steps=6, linear_step=step)
    mean, deviation = spread(problem, oracle, v, u, 400)
    # At u* the loss of every sample is stationary, so that sampled steps are zero.
    assert torch.allclose(mean[p : p + 4], u[0], rtol=0.0, atol=1e-12)
    series = at(problem, Neumann(steps=6, linear_step=step), v, u)[0].derivative
    shorter = at(problem, Neumann(steps=4, linear_step=step), v, u)[0].derivative
    assert float(((mean[:p] - series) / deviation[:p]).abs().max()) < 4.0
    assert float(((mean[:p] - shorter) / deviation[:p]).abs().max()) > 8.0


def test_nsbo_sgd_has_the_mean_of_nbo_gd() -> None:
    problem = cubic_problem(n=4, p=3)
    v, u = solved(problem)
    near = u + 0.1 * normal(seeded(5), *u.shape)
    step, p = 0.2 / float(dense(problem, near, v)[2][-1]), problem.outer_size
    mean, deviation = spread(problem, NSBOSGD(tests=8, steps=5, linear_step=step), v, near, 400)
    expected = at(problem, NBOGD(steps=5, linear_step=step), v, near)[1]
    other = at(problem, NBOGD(steps=4, linear_step=step), v, near)[1]
    for part, name in ((slice(p, p + 4), "u"), (slice(p + 4, None), "q")):
        far = (mean[part] - getattr(expected, name)[0]) / deviation[part]
        wrong = (mean[part] - getattr(other, name)[0]) / deviation[part]
        assert float(far.abs().max()) < 4.0 and float(wrong.abs().max()) > 8.0


def test_the_noise_of_amigo_falls_with_its_step() -> None:
    problem = cubic_problem(n=4, p=3)
    v, u = solved(problem)
    exact, largest = adjoint(problem, u, v), float(dense(problem, u, v)[2][-1])
    noise = []
    for step in (0.1, 0.025):
        oracle = AmIGO(tests=8, inner_steps=1, steps=5, linear_step=step / largest)
        state = replace(oracle.init(problem, u, v), q=exact)
        squares = []
        for _ in range(400):
            _, state = oracle.evaluate(problem, v, state, EXACT)
            squares.append(problem.inner_metric.norm(state.q - exact) ** 2)
        noise.append(sum(squares[100:]) / len(squares[100:]))
    # The noise is of first order in the step, and a little larger if the step is not small.
    assert 3.5 < noise[0] / noise[1] < 7.0


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.stochastic])
def test_default_steps_are_stable_for_any_spectrum(name: str) -> None:
    """Without noise, as in least squares, the default size and number of steps suffice."""
    problem = least_squares()
    v, u = solved(problem)
    # A moving average forgets its first values at the rate 0.9.
    times = 40 if name == "ma_nsbo_saga" else 2
    evaluation, _ = at(problem, METHODS[name].factory(16), v, torch.zeros_like(u), times)
    assert error(problem, evaluation) < 0.3


def test_the_mean_of_saba_is_the_mean_of_its_table() -> None:
    problem = cubic_problem(n=4, p=3)
    v, u = solved(problem)
    _, state = at(problem, SABA(tests=3, pool=5, warm_up=2), v, torch.zeros_like(u), 20)
    for name in ("gradient", "image", "cross"):
        mean = sum(getattr(terms, name) for terms in state.table) / 5
        assert torch.allclose(getattr(state.mean, name), mean, atol=1e-12)
    # By default there are twice as many test functions as unknowns of a scenario.
    assert len(SABA(tests=3).init(problem, u, v).pool) == 3


def test_soba_takes_the_three_steps_of_its_algorithm() -> None:
    """In least squares the terms are deterministic, so that every line is a formula with matrices."""
    problem = least_squares()
    a, b, c = 0.02, 0.03, 0.05
    gram, matrix, _ = dense(problem, *problem.start())
    outer = problem.outer_metric.covector(torch.eye(problem.outer_size, dtype=torch.float64))
    u, v = torch.zeros(8, dtype=torch.float64), torch.zeros(12, dtype=torch.float64)
    q = torch.zeros_like(u)
    told: list[tuple[Tensor, Tensor, Tensor]] = []
    minimise(
        problem,
        SOBA(inner_step=a, linear_step=b, warm_up=2),
        GradientDescent(c),
        Stopping(iterations=4, rtol=0.0),
        lambda it: told.append((it.oracle.u[0], it.oracle.q[0], it.evaluation.v)),  # type: ignore[index]
    )
    design, mixing = problem.design[0], problem.mixing[0]
    for k in range(-2, 5):
        inner_gradient = design.T @ (design @ u + mixing @ v - problem.data[0])
        linear = matrix @ q - (u - problem.target[0])
        derivative = problem.weight * outer @ v - problem.control[0].T @ q
        position = v
        u = u - a * torch.linalg.solve(gram, inner_gradient)
        q = q - b * torch.linalg.solve(gram, linear)
        if k >= 0:
            v = v - c * torch.linalg.solve(outer, derivative)
            for ours, expected in zip(told[k], (u, q, position), strict=True):
                assert torch.allclose(ours, expected, rtol=1e-10, atol=1e-13)


def test_saba_converges_linearly_to_the_exact_optimum_and_soba_does_not() -> None:
    """In the residual form the optimum of a regular finite sum is that of the expectation."""
    problem = cubic_problem(n=4, p=3, cubic=0.02, weight=0.3)
    oracles: list[Oracle] = [
        SABA(tests=4, pool=6, inner_step=0.06, linear_step=0.06),
        SOBA(tests=4, inner_step=0.06, linear_step=0.06),
    ]
    gaps = {}
    for oracle in oracles:
        path = []
        minimise(
            problem,
            oracle,
            GradientDescent(0.3),
            Stopping(iterations=1201, rtol=1e-10, certificate=1e-300),
            lambda it, path=path: path.append(it.evaluation.v) if it.iteration % 300 == 0 else None,  # type: ignore[misc]
        )
        gaps[oracle.name] = [gap(problem, v) for v in path]
    saba, soba = gaps["saba"], gaps["soba"]
    assert all(later < 0.3 * sooner for sooner, later in pairwise(saba)) and saba[-1] < 1e-4
    assert min(soba[1:]) > 1e-2


def test_the_noise_of_soba_falls_with_its_steps() -> None:
    problem = cubic_problem(n=4, p=3, cubic=0.02, weight=0.3)
    best = minimise(problem, TruncatedCG(), LBFGS(), Stopping(rtol=1e-9)).last.evaluation.v
    problem.u0, problem.v0 = problem.solution(best), best
    squares = []
    for share in (1.0, 0.2):
        late: list[Tensor] = []
        minimise(
            problem,
            SOBA(tests=16, inner_step=0.1, linear_step=0.1 * share),
            GradientDescent(0.3 * share),
            Stopping(iterations=600, rtol=1e-10),
            lambda it, late=late: late.append(it.evaluation.v),  # type: ignore[misc]
        )
        squares.append(sum(problem.outer_metric.norm((v - best)[None]) ** 2 for v in late[100:]) / len(late[100:]))
    # The noise is of first order in the steps, which decrease together except for that of u, whose noise vanishes at
    # u*.
    assert 3.0 < squares[0] / squares[1] < 12.0
