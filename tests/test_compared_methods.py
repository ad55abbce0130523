"""The compared methods: rates of the deterministic ones, means and noise of the stochastic ones, whole runs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from bilevel_problems import Explicit, cubic_problem, least_squares, normal, quadratic_function, seeded
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.minimise import Accuracy, Oracle, Stopping, minimise
from nhgd_pde.engine.outer.base import Evaluation
from nhgd_pde.engine.outer.gradient import GradientDescent
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.plain import from_plain, to_plain
from nhgd_pde.linalg.broyden import LowRankInverse, broyden
from nhgd_pde.methods.amigo import AmIGO
from nhgd_pde.methods.broyden import Broyden
from nhgd_pde.methods.nbo import NBOCG, NBOGD, NSBOSGD
from nhgd_pde.methods.neumann import Neumann
from nhgd_pde.methods.registry import METHODS
from nhgd_pde.methods.saba import SABA
from nhgd_pde.methods.soba import SOBA
from nhgd_pde.methods.stocbio import StocBiO
from nhgd_pde.methods.truncated_cg import TruncatedCG
from nhgd_pde.problem.errors import ProblemError
from nhgd_pde.problem.schema import ProblemSpec

EXACT = Accuracy(0.0, 0.0)


def dense(problem: Explicit, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """K, H (d, d) and the eigenvalues of K^-1 H, ascending."""
    scenarios, n = problem.inner_shape
    gram = problem.inner_metric.covector(torch.eye(n, dtype=torch.float64))
    whole = torch.block_diag(*[gram] * scenarios)
    matrix = torch.stack(
        [
            problem.hessian_product(u, v, column.reshape(scenarios, n)).reshape(-1)
            for column in torch.eye(scenarios * n, dtype=torch.float64)
        ],
        dim=1,
    )
    root = torch.linalg.inv(torch.linalg.cholesky(whole))
    return whole, matrix, torch.linalg.eigvalsh(root @ matrix @ root.T)


def adjoint(problem: Explicit, u: Tensor, v: Tensor) -> Tensor:
    """The solution of H q = df/du at (u, v)."""
    right = problem.outer_derivatives(u, v)[0]
    return torch.linalg.solve(dense(problem, u, v)[1], right.reshape(-1)).reshape(u.shape)


def at(problem: Explicit, oracle: Any, v: Tensor, u: Tensor, times: int = 1) -> tuple[Evaluation, Any]:
    """The last of some evaluations at v from u."""
    state = oracle.init(problem, u, v)
    for _ in range(times):
        evaluation, state = oracle.evaluate(problem, v, state, EXACT)
    return evaluation, state


def error(problem: Explicit, evaluation: Evaluation) -> float:
    """Relative error of the hypergradient."""
    exact = problem.exact(evaluation.v)[1]
    return float((evaluation.derivative - exact).norm() / exact.norm())


def solved(problem: Explicit) -> tuple[Tensor, Tensor]:
    """Some v, and u*(v)."""
    v = normal(seeded(7), problem.outer_size)
    return v, problem.solution(v)


# Deterministic methods


@pytest.mark.parametrize("method", [TruncatedCG, Neumann])
def test_inner_steps_contract_as_the_spectrum_says(method: Any) -> None:
    problem = least_squares()
    v, u = solved(problem)
    mu, largest = (float(x) for x in dense(problem, u, v)[2][[0, -1]])
    errors = []
    for steps in range(150, 153):
        oracle = method(inner_steps=steps, steps=0, inner_step=2.0 / (mu + largest))
        errors.append(problem.inner_metric.norm(at(problem, oracle, v, torch.zeros_like(u))[1].u - u))
    # Two ends of the spectrum are slowest, with opposite signs.
    assert math.sqrt(errors[2] / errors[0]) == pytest.approx((largest - mu) / (largest + mu), rel=1e-6)


def test_own_inner_steps_find_the_state_where_the_first_spectrum_was_wrong() -> None:
    """H grows by a factor of eight from u = 0 to the solution."""
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
    # Warm-started, four steps twice are better than four.
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
    # The certificate is the residual with one term less.
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
        # What the good update leaves alone: A+^-1 = A^-1 on everything that is K-orthogonal to s.
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


def test_shine_takes_the_inverse_of_the_inner_solver_as_it_is() -> None:
    problem = cubic_problem(3, n=20)
    v, u = solved(problem)
    zero = torch.zeros_like(u)
    oracle, accuracy = Broyden(inner_steps=40, steps=0), Accuracy(1e-6, 1e-6)
    evaluation, state = oracle.evaluate(problem, v, oracle.init(problem, zero, v), accuracy)
    metric, start = problem.inner_metric, Broyden().init(problem, zero, v)
    inner = broyden(
        lambda w: problem.inner_gradient(w, v),
        zero,
        start.inverse,
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
    # Without pairs it is one gradient step, and far worse.
    assert error(problem, evaluation) < 0.6 * error(problem, at(problem, Broyden(inner_steps=0, steps=0), v, u)[0])


def test_a_shine_estimate_that_is_worse_than_none_gives_way_to_a_gradient_step() -> None:
    problem = least_squares()
    v, u = solved(problem)
    evaluation, state = at(problem, Broyden(inner_steps=40, steps=0), v, torch.zeros_like(u))
    _, plain = at(problem, Broyden(inner_steps=0, steps=0), v, u)
    assert evaluation.adjoint_error < 1.0 and torch.allclose(state.q, plain.q, atol=1e-9)


def test_the_first_transposed_step_gives_a_secant_too() -> None:
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


def test_what_an_evaluation_has_learnt_serves_the_next() -> None:
    problem = cubic_problem(3, n=20)
    v, u = solved(problem)
    fresh, later = (at(problem, Broyden(inner_steps=0, steps=6), v, u, times)[0] for times in (1, 2))
    assert error(problem, later) < 0.5 * error(problem, fresh)
    oracle, accuracy = Broyden(), Accuracy(1e-8, 1e-8)
    first, state = oracle.evaluate(problem, v, oracle.init(problem, torch.zeros_like(u), v), accuracy)
    again, _ = oracle.evaluate(problem, 1.01 * v, state, accuracy)
    assert again.inner_steps < 0.6 * first.inner_steps
    # The start of the linear system is worth as much in the other methods.
    once, twice = (error(problem, at(problem, NBOCG(steps=3), v, u, times)[0]) for times in (1, 2))
    assert twice < 0.3 * once


def test_broyden_forgets_what_makes_the_residual_grow() -> None:
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
    # q solves the system of the u before the step, whatever the solver: one order less, made good by a second step.
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


# Stochastic methods


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
    # The loss of every sample is stationary at u*, where a sampled step does not move.
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
    # Of first order in the step, and a little more while the step is not small.
    assert 3.5 < noise[0] / noise[1] < 7.0


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.stochastic])
def test_default_steps_are_stable_whatever_the_spectrum(name: str) -> None:
    """Without noise, as in least squares, the default steps and their number are enough."""
    problem = least_squares()
    v, u = solved(problem)
    evaluation, _ = at(problem, METHODS[name].factory(16), v, torch.zeros_like(u))
    assert error(problem, evaluation) < 0.3


def test_the_mean_of_saba_is_that_of_its_table() -> None:
    problem = cubic_problem(n=4, p=3)
    v, u = solved(problem)
    _, state = at(problem, SABA(tests=3, pool=5, warm_up=2), v, torch.zeros_like(u), 20)
    for name in ("gradient", "image", "cross"):
        mean = sum(getattr(terms, name) for terms in state.table) / 5
        assert torch.allclose(getattr(state.mean, name), mean, atol=1e-12)
    # The default pool has twice as many tests as a scenario has unknowns.
    assert len(SABA(tests=3).init(problem, u, v).pool) == 3


def test_soba_is_its_three_lines() -> None:
    """Least squares has deterministic terms, so that every line can be written with matrices."""
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


def gap(problem: Explicit, v: Tensor) -> float:
    """The norm of the exact gradient at v over the one at the start."""
    norm = problem.outer_metric.dual_norm
    return norm(problem.exact(v)[1][None]) / norm(problem.exact(problem.start()[1])[1][None])


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
    # Of first order in the steps, which all fall together but for that of u, whose noise vanishes at u*.
    assert 3.0 < squares[0] / squares[1] < 12.0


# What all of them have in common


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_its_way_from_a_checkpoint(name: str) -> None:
    problem = cubic_problem()
    v, u = solved(problem)
    oracle: Any = METHODS[name].factory(4, steps=3, inner_steps=2, seed=5)
    state = oracle.evaluate(problem, v, oracle.init(problem, u + 0.1, v), EXACT)[1]
    copy = from_plain(to_plain(state))
    ours, copied = (oracle.evaluate(problem, 1.1 * v, each, EXACT) for each in (state, copy))
    assert ours[0].value == copied[0].value
    assert torch.equal(ours[0].derivative, copied[0].derivative) and torch.equal(ours[1].q, copied[1].q)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_diverges_keeps_the_state_it_had(name: str) -> None:
    problem = cubic_problem()
    v, u = solved(problem)
    oracle: Any = METHODS[name].factory(4, steps=3, inner_steps=2)
    _, before = oracle.evaluate(problem, v, oracle.init(problem, u + 0.1, v), EXACT)
    failed, after = oracle.evaluate(problem, torch.full_like(v, math.inf), before, EXACT)
    assert not failed.finite and failed.message and after.u is before.u and after.q is before.q
    assert oracle.evaluate(problem, v, after, EXACT)[0].finite


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.tracking])
@pytest.mark.parametrize("problem", [least_squares(n=6, p=4), cubic_problem(1, scenarios=2)])
def test_methods_without_samples_find_the_optimum_by_lbfgs(name: str, problem: Explicit) -> None:
    oracle = METHODS[name].factory(1, steps=1500 if name == "neumann" else None, inner_steps=1500)
    found = minimise(problem, oracle, LBFGS(), Stopping(rtol=1e-7))
    assert found.status == "converged", found.message
    assert gap(problem, found.last.evaluation.v) < 3e-7


def test_a_constant_step_is_shortened_until_the_objective_falls() -> None:
    function, hessian, linear = quadratic_function(6, 30.0, quadratic=False)
    fixed = GradientDescent(search=False)
    found, told = function.minimise(fixed, Stopping(iterations=2000, rtol=1e-6))
    assert found.status == "converged"
    assert torch.allclose(found.last.evaluation.v, torch.linalg.solve(hessian, linear), rtol=1e-4)
    steps = [iterate.step for iterate in told[1:]]
    assert all(later in (sooner, 0.5 * sooner, 0.25 * sooner) for sooner, later in pairwise(steps))
    # One that is far too long is taken back.
    steep, _, _ = quadratic_function(6, 1e5, quadratic=False)
    _, told = steep.minimise(fixed, Stopping(iterations=100))
    values = [iterate.evaluation.value for iterate in told]
    assert told[-1].evaluations > len(told) and max(values) < 11.0 * abs(values[0]) and values[-1] < values[0]
    # A step that is given is left alone, whatever it does.
    _, told = function.minimise(GradientDescent(10.0), Stopping(iterations=5))
    assert {iterate.step for iterate in told[1:]} <= {10.0}


FILE = "problems/poisson_control.yaml"


def loaded(**overrides: Any) -> nhgd.Problem:
    return nhgd.load(FILE, {"mesh.cells": 8, **{key.replace("__", "."): value for key, value in overrides.items()}})


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("model", ["energy", "residual"])
def test_every_method_reduces_the_objective_of_a_shipped_problem(name: str, model: str) -> None:
    problem = loaded(method=name, inner__model=model, inner__tests=32, outer__iterations=60)
    reference = nhgd.solve(loaded(method="adjoint"))
    solution = nhgd.solve(problem)
    assert solution.status == ("stopped" if METHODS[name].tracking else "converged"), solution.message
    if METHODS[name].tracking:
        assert solution.objective < 0.5 * reference.stats["objective_initial"]
    else:
        assert solution.objective < 1.000001 * reference.objective
    # The state that comes with it is the one of the control, as closely as the certificate says.
    assert solution.certificate.state_residual < (0.3 if METHODS[name].tracking else 1e-8)


def test_the_file_offers_exactly_the_methods_there_are() -> None:
    assert set(get_args(ProblemSpec.model_fields["method"].annotation)) == {"nhgd", "adjoint", *METHODS}


def test_options_reach_the_methods() -> None:
    options = {
        "inner__step": 0.25,
        "inner__steps": 7,
        "inner__tests": 9,
        "hypergradient__step": 0.125,
        "hypergradient__steps": 11,
        "seed": 3,
    }
    assert loaded(method="amigo", **options).method.oracle == AmIGO(9, 7, 11, 0.25, 0.125, 3)
    assert loaded(method="stocbio", **options).method.oracle == StocBiO(9, 7, 11, 0.25, 0.125, 3)
    assert loaded(method="soba", **options).method.oracle == SOBA(9, 0.25, 0.125, seed=3)
    assert loaded(method="saba", **options).method.oracle == SABA(9, None, 0.25, 0.125, seed=3)
    assert loaded(method="neumann", **options).method.oracle == Neumann(7, 11, 0.25, 0.125)
    assert loaded(method="truncated_cg", **options).method.oracle == TruncatedCG(7, 11, 0.25)
    assert loaded(method="broyden", **options).method.oracle == Broyden(7, 11)
    assert loaded(method="nbo_gd", **options).method.oracle == NBOGD(11, 7, linear_step=0.125, seed=3)
    assert loaded(method="nbo_cg", **options).method.oracle == NBOCG(11, 7, seed=3)
    assert loaded(method="nsbo_sgd", **options).method.oracle == NSBOSGD(11, 7, tests=9, linear_step=0.125, seed=3)
    for name in METHODS:
        assert loaded(method=name).method.oracle.name == name
    assert loaded(method="soba").method.outer == GradientDescent(search=False)
    assert loaded(method="soba", outer__step=2.0).method.outer == GradientDescent(2.0, search=False)
    assert loaded(method="soba", outer__method="lbfgs").method.outer == LBFGS()
    assert loaded(method="broyden").method.outer == LBFGS()
    with pytest.raises(ProblemError, match=r"inner\.tests: expected a number: soba draws samples, found 'all'"):
        loaded(method="soba", inner__tests="all")
