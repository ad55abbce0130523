"""Compared methods without samples: the rates at which their hypergradients converge."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from bilevel_problems import cubic_problem, least_squares, normal, seeded
from hypergradients import adjoint, at, dense, error, solved
from torch import Tensor

from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.linalg.broyden_inverse import LowRankInverse, broyden
from nhgd_pde.methods.broyden import Broyden
from nhgd_pde.methods.nbo import NBOCG, NBOGD
from nhgd_pde.methods.neumann import Neumann
from nhgd_pde.methods.truncated_cg import TruncatedCG


@pytest.mark.parametrize("method", [TruncatedCG, Neumann])
def test_inner_steps_contract_at_the_rate_of_the_spectrum(method: Any) -> None:
    problem = least_squares()
    v, u = solved(problem)
    mu, largest = (float(x) for x in dense(problem, u, v)[2][[0, -1]])
    errors = []
    for steps in range(150, 153):
        oracle = method(inner_steps=steps, steps=0, inner_step=2.0 / (mu + largest))
        errors.append(problem.inner_metric.norm(at(problem, oracle, v, torch.zeros_like(u))[1].u - u))
    # The two ends of the spectrum are slowest, with opposite signs.
    assert math.sqrt(errors[2] / errors[0]) == pytest.approx((largest - mu) / (largest + mu), rel=1e-6)


def test_own_inner_steps_find_the_state_although_the_first_spectrum_was_wrong() -> None:
    """H grows by the factor eight from u = 0 to the solution."""
    problem = cubic_problem(1, scenarios=2)
    v, u = solved(problem)
    _, state = at(problem, TruncatedCG(), v, torch.zeros_like(u))
    assert problem.inner_metric.norm(state.u - u) < 1e-9 * problem.inner_metric.norm(u)
    values = dense(problem, u, v)[2]
    assert values[-1] > 8.0
    assert state.spectrum == pytest.approx((float(values[0]), float(values[-1])), rel=1e-3)


def test_conjugate_gradients_obey_their_bound_and_end_after_n_steps() -> None:
    problem = least_squares()
    v, u = solved(problem)
    _, matrix, values = dense(problem, u, v)
    ratio = math.sqrt(float(values[-1] / values[0]))
    exact = adjoint(problem, u, v)

    def energy(q: Tensor) -> float:
        return math.sqrt(float(q.reshape(-1) @ matrix @ q.reshape(-1)))

    for steps in (1, 2, 4, 8):
        evaluation, state = at(problem, TruncatedCG(steps=steps), v, u)
        assert energy(state.q - exact) <= 2.0 * ((ratio - 1.0) / (ratio + 1.0)) ** steps * energy(exact) + 1e-9
        assert evaluation.refinement_steps == steps
        assert (error(problem, evaluation) < 1e-10) == (steps == 8)
    # With a warm start, twice four steps are better than four.
    once, twice = (error(problem, at(problem, TruncatedCG(steps=4), v, u, times)[0]) for times in (1, 2))
    assert twice < 0.3 * once


def test_the_neumann_series_converges_at_the_rate_of_gradient_descent() -> None:
    problem = least_squares()
    v, u = solved(problem)
    values = dense(problem, u, v)[2]
    step = float(1.0 / values[-1])
    rate, exact = 1.0 - step * float(values[0]), adjoint(problem, u, v)
    counts = [0, 1, 100, 200, 300]
    found = [at(problem, Neumann(steps=k, linear_step=step), v, u) for k in counts]
    lengths = [problem.inner_metric.norm(state.q - exact) for _, state in found]
    assert lengths[1] <= rate**2 * problem.inner_metric.norm(exact)
    for (one, two), far in zip(pairwise(found[2:]), (100, 200), strict=True):
        assert (lengths[counts.index(far + 100)] / lengths[counts.index(far)]) ** 0.01 == pytest.approx(rate, rel=1e-4)
        assert (error(problem, two[0]) / error(problem, one[0])) ** 0.01 == pytest.approx(rate, rel=1e-3)
    # The certificate is the residual of the series with one term less.
    residual = problem.outer_derivatives(u, v)[0] - problem.hessian_product(u, v, found[3][1].q)
    scale = problem.inner_metric.dual_norm(problem.outer_derivatives(u, v)[0])
    assert found[3][0].adjoint_error * rate == pytest.approx(problem.inner_metric.dual_norm(residual) / scale, rel=1e-4)


def test_a_neumann_series_that_diverges_is_a_failed_evaluation() -> None:
    problem = least_squares()
    v, u = solved(problem)
    step = 2.2 / float(dense(problem, u, v)[2][-1])
    evaluation, state = at(problem, Neumann(linear_step=step), v, u)
    assert not evaluation.finite and evaluation.message.endswith("diverges") and torch.equal(state.u, u)


def test_a_broyden_update_satisfies_the_secant_condition_in_any_metric() -> None:
    problem, g = least_squares(scenarios=2), seeded(3)
    metric, shape = problem.inner_metric, problem.inner_shape
    inverse = LowRankInverse.scaled(0.3, torch.zeros(shape, dtype=torch.float64))
    for _ in range(4):
        s, y, x = (normal(g, *shape) for _ in range(3))
        old, inverse = inverse, inverse.updated(metric, s, y, inverse.solve(y, metric.gradient(y)), memory=3)
        assert torch.allclose(inverse.solve(y, metric.gradient(y)), s, rtol=0.0, atol=1e-9)
        # The good update does not change A^-1 on vectors that are K-orthogonal to s.
        image = old.solve(x, metric.gradient(x))
        x = x - y * (metric.inner(s, image) / metric.inner(s, old.solve(y, metric.gradient(y))))
        if old.rank < 3:
            expected = old.solve(x, metric.gradient(x))
            assert torch.allclose(inverse.solve(x, metric.gradient(x)), expected, rtol=0.0, atol=1e-9)
        z = normal(g, *shape)
        forth = float((z * inverse.solve(x, metric.gradient(x))).sum())
        assert float((x * inverse.solve_transposed(z, metric.gradient(z))).sum()) == pytest.approx(forth, rel=1e-9)
    assert inverse.rank == 3


def test_broyden_solves_a_linear_system_in_twice_its_size() -> None:
    """Gay 1979, SIAM J. Numer. Anal. 16."""
    problem = least_squares()
    v, u = solved(problem)
    for steps, exact in ((8, False), (16, True)):
        evaluation, _ = at(problem, Broyden(inner_steps=0, steps=steps), v, u)
        assert (error(problem, evaluation) < 1e-8) == exact
        assert (evaluation.adjoint_error < 1e-8) == exact


def test_shine_uses_the_inverse_of_the_inner_solver_unchanged() -> None:
    problem = cubic_problem(3, n=20)
    v, u = solved(problem)
    zero = torch.zeros_like(u)
    oracle, accuracy = Broyden(inner_steps=40, steps=0), Accuracy(1e-6, 1e-6)
    evaluation, state = oracle.evaluate(problem, v, oracle.init(problem, zero, v), accuracy)
    metric, start = problem.inner_metric, Broyden().init(problem, zero, v)
    inner = broyden(
        lambda w: problem.inner_gradient(w, v),
        zero,
        LowRankInverse.scaled(2.0 / sum(start.spectrum), zero),
        metric,
        lambda w: 1e-6 * start.spectrum[0] * metric.norm(w),
        40,
        30,
    )
    right = problem.outer_derivatives(state.u, v)[0]
    expected = inner.inverse.solve_transposed(right, problem.inner_metric.gradient(right))
    assert torch.allclose(state.q, expected) and evaluation.refinement_steps == 1
    residual = right - problem.hessian_product(state.u, v, state.q)
    relative = problem.inner_metric.dual_norm(residual) / problem.inner_metric.dual_norm(right)
    assert evaluation.adjoint_error == pytest.approx(relative, rel=1e-9)
    # Without pairs it is one gradient step, which is far worse.
    assert error(problem, evaluation) < 0.6 * error(problem, at(problem, Broyden(inner_steps=0, steps=0), v, u)[0])


def test_a_bad_shine_estimate_is_replaced_by_a_gradient_step() -> None:
    problem = least_squares()
    v, u = solved(problem)
    evaluation, state = at(problem, Broyden(inner_steps=40, steps=0), v, torch.zeros_like(u))
    _, plain = at(problem, Broyden(inner_steps=0, steps=0), v, u)
    assert evaluation.adjoint_error < 1.0 and torch.allclose(state.q, plain.q, atol=1e-9)


def test_the_first_transposed_step_also_gives_a_secant() -> None:
    problem, memory = cubic_problem(3, n=20), 30
    v, u = solved(problem)
    metric, right = problem.inner_metric, problem.outer_derivatives(u, v)[0]

    def residual(q: Tensor) -> Tensor:
        return problem.hessian_product(u, v, q) - right

    start = LowRankInverse.scaled(0.2, u)
    known = broyden(lambda w: problem.inner_gradient(w, v), 0.9 * u, start, metric, lambda w: 0.0, 6, memory).inverse
    found = broyden(residual, torch.zeros_like(u), known, metric, lambda q: 0.0, 1, memory, transposed=True)
    y = residual(found.solution) + right
    assert torch.allclose(found.solution, known.solve_transposed(right, metric.gradient(right)))
    assert torch.allclose(found.inverse.solve(y, metric.gradient(y)), found.solution, atol=1e-10)


def test_an_evaluation_uses_the_pairs_of_the_last_one() -> None:
    problem = cubic_problem(3, n=20)
    v, u = solved(problem)
    fresh, later = (at(problem, Broyden(inner_steps=0, steps=6), v, u, times)[0] for times in (1, 2))
    assert error(problem, later) < 0.5 * error(problem, fresh)
    # The start of the linear system helps as much in the other methods.
    once, twice = (error(problem, at(problem, NBOCG(steps=3), v, u, times)[0]) for times in (1, 2))
    assert twice < 0.3 * once


def test_broyden_drops_pairs_that_make_the_residual_grow() -> None:
    problem = least_squares()
    v, u = solved(problem)
    wild = LowRankInverse.scaled(1e3, u)
    found = broyden(
        lambda w: problem.inner_gradient(w, v), torch.zeros_like(u), wild, problem.inner_metric, lambda w: 1e-9, 80, 30
    )
    assert found.length <= 1e-9 and torch.allclose(found.solution, u, atol=1e-8)


def test_a_newton_step_squares_the_error_of_the_state() -> None:
    problem = cubic_problem()
    v, u = solved(problem)
    direction = normal(seeded(4), *u.shape)
    states, first, second = [], [], []
    for distance in (0.04, 0.02, 0.01, 0.005):
        one, state = at(problem, NBOCG(steps=8), v, u + distance * direction)
        states.append(float((state.u - u).norm()))
        first.append(error(problem, one))
        second.append(error(problem, at(problem, NBOCG(steps=8, rounds=2), v, u + distance * direction)[0]))

    def orders(errors: list[float]) -> list[float]:
        return [math.log2(a / b) for a, b in pairwise(errors)]

    assert orders(states)[-1] == pytest.approx(2.0, abs=0.05)
    # With any solver, q solves the system of the u before the step, which is one order less; a second step restores it.
    assert orders(first)[-1] == pytest.approx(1.0, abs=0.05)
    assert orders(second)[-1] == pytest.approx(2.0, abs=0.05)


def test_the_solvers_of_nbo_converge_to_each_other() -> None:
    problem = least_squares()
    v, _ = solved(problem)
    u = torch.zeros(problem.inner_shape, dtype=torch.float64)
    values = dense(problem, u, v)[2]
    rate = float((values[-1] - values[0]) / (values[-1] + values[0]))
    exact, solution = at(problem, NBOCG(steps=8), v, u)
    assert torch.allclose(solution.u, problem.solution(v)) and torch.allclose(solution.q, adjoint(problem, u, v))
    gaps = []
    for steps in (100, 200):
        evaluation, state = at(problem, NBOGD(steps=steps), v, u)
        gaps.append((float((evaluation.derivative - exact.derivative).norm()), float((state.u - solution.u).norm())))
    for near, far in zip(*gaps, strict=True):
        assert (far / near) ** 0.01 == pytest.approx(rate, rel=1e-3)
