from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from bilevel_problems import Explicit, cubic_problem, least_squares, normal, riesz, seeded, spd
from torch import Tensor

from nhgd_pde.engine.hypergradient import Hypergradient, hypergradient


@dataclass(frozen=True)
class RoughInverse:
    """(H^-1)^1/2 (I + N) (H^-1)^1/2, which is symmetric positive definite with a relative error `noise`."""

    matrix: Tensor

    def solve(self, g: Tensor) -> Tensor:
        return (self.matrix @ g.reshape(-1)).reshape(g.shape)

    def estimate(self, g: Tensor) -> Tensor:
        return 0.5 * self.solve(g)


def rough_inverse(problem: Explicit, u: Tensor, v: Tensor, noise: float, seed: int = 0) -> RoughInverse:
    root = torch.linalg.cholesky(torch.linalg.inv(problem.hessian(u, v)))
    d = root.shape[0]
    middle = torch.eye(d, dtype=torch.float64)
    if noise:
        middle = middle + noise * (spd(d, 10.0, seeded(seed)) / 10.0 - 0.5 * middle)
    return RoughInverse(root @ middle @ root.T)


PROBLEMS = [
    least_squares(),
    least_squares(1, scenarios=3),
    cubic_problem(),
    cubic_problem(1, scenarios=2),
    least_squares(2, n=30, p=4),
]


def at_solution(problem: Explicit, seed: int = 0) -> tuple[Tensor, Tensor]:
    v = normal(seeded(seed), problem.outer_size)
    return problem.solution(v), v


def dual_residual(problem: Explicit, u: Tensor, v: Tensor, found: Hypergradient) -> float:
    """|grad_u f - H q| / |grad_u f| in the dual norm, with the dense matrix."""
    g = problem.outer_derivatives(u, v)[0]
    residual = g - (problem.hessian(u, v) @ found.q.reshape(-1)).reshape(g.shape)
    return problem.inner_metric.dual_norm(residual) / problem.inner_metric.dual_norm(g)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_reference_derivatives_are_those_of_the_reference_values(problem: Explicit) -> None:
    v, direction = normal(seeded(0), problem.outer_size), normal(seeded(1), problem.outer_size)
    step = 1e-5
    quotient = (problem.exact(v + step * direction)[0] - problem.exact(v - step * direction)[0]) / (2 * step)
    assert float(problem.exact(v)[1] @ direction) == pytest.approx(quotient, rel=1e-6)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_refinement_from_a_rough_inverse_gives_the_exact_hypergradient(problem: Explicit) -> None:
    u, v = at_solution(problem)
    exact = problem.exact(v)[1]
    inverse = rough_inverse(problem, u, v, noise=0.9)
    found = hypergradient(problem, u, v, inverse, None, tolerance=1e-11)
    assert found.converged and found.error <= 1e-11
    assert float((found.derivative - exact).norm() / exact.norm()) < 1e-8
    assert torch.allclose(found.derivative, problem.outer_derivatives(u, v)[1] + found.indirect)
    rough = hypergradient(problem, u, v, inverse, None, tolerance=None)
    assert not rough.converged and rough.steps == 0
    assert float((rough.derivative - exact).norm() / exact.norm()) > 1e-2


@pytest.mark.parametrize("problem", PROBLEMS)
def test_without_refinement_the_error_reported_is_the_true_residual(problem: Explicit) -> None:
    u, v = at_solution(problem)
    inverse = rough_inverse(problem, u, v, noise=0.0)
    exact = hypergradient(problem, u, v, RoughInverse(2.0 * inverse.matrix), None, tolerance=None)
    assert exact.error < 1e-12
    for noise in (1e-6, 1e-2, 0.9):
        found = hypergradient(problem, u, v, rough_inverse(problem, u, v, noise), None, tolerance=None)
        true = dual_residual(problem, u, v, found)
        # The scale |grad_u f| is bounded from below by its pairing with q / |q|.
        g = problem.outer_derivatives(u, v)[0]
        pairing = float((g * found.q).sum()) / problem.inner_metric.norm(found.q)
        loose = problem.inner_metric.dual_norm(g) / pairing
        assert loose >= 1.0 - 1e-12
        assert found.error == pytest.approx(loose * true, rel=1e-8)


def test_with_the_hessian_as_metric_the_error_is_that_of_q() -> None:
    problem = least_squares(n=10)
    problem.inner_metric = riesz(problem.hessians[0])
    u, v = at_solution(problem)
    g = problem.outer_derivatives(u, v)[0]
    q = torch.linalg.solve(problem.hessians[0], g[0])[None]
    for noise in (1e-6, 1e-3):
        inverse = RoughInverse(2.0 * rough_inverse(problem, u, v, noise).matrix)
        found = hypergradient(problem, u, v, inverse, None, tolerance=None)
        relative = problem.inner_metric.norm(found.q - q) / problem.inner_metric.norm(q)
        assert found.error == pytest.approx(relative, rel=5.0 * noise)


def test_the_certificate_bounds_the_true_residual() -> None:
    sharp = 0
    for seed in range(60):
        problem = (least_squares, cubic_problem)[seed % 2](seed, scenarios=1 + seed % 3, n=4 + seed % 20)
        u, v = at_solution(problem, seed)
        tolerance = 10.0 ** -(2 + seed % 10)
        inverse = rough_inverse(problem, u, v, noise=0.9, seed=seed)
        found = hypergradient(problem, u, v, inverse, None, tolerance, iterations=2 + seed % 40)
        true = dual_residual(problem, u, v, found)
        assert found.error >= (1.0 - 1e-6) * true
        assert found.converged == (found.error <= tolerance)
        sharp += found.error < 10.0 * true
    assert sharp > 40


def test_the_certificate_is_never_below_rounding() -> None:
    # With an exact preconditioner, the recurrence for the residual of conjugate gradients gives 1e-30.
    problem = least_squares(n=30)
    u, v = at_solution(problem)
    inverse = rough_inverse(problem, u, v, noise=0.0)
    first = hypergradient(problem, u, v, inverse, None, tolerance=1e-8)
    again = hypergradient(problem, u, v, inverse, first.q, tolerance=1e-8)
    for found in (first, again):
        assert 1e-17 < found.error < 1e-12
        assert found.error >= (1.0 - 1e-2) * dual_residual(problem, u, v, found)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_warm_start_saves_steps(problem: Explicit) -> None:
    u, v = at_solution(problem)
    inverse = rough_inverse(problem, u, v, noise=0.9)
    cold = hypergradient(problem, u, v, inverse, None, tolerance=1e-10)
    near = 1e-4 * normal(seeded(5), problem.outer_size)
    moved = problem.solution(v + near)
    warm = hypergradient(problem, moved, v + near, inverse, cold.q, tolerance=1e-10)
    fresh = hypergradient(problem, moved, v + near, inverse, None, tolerance=1e-10)
    assert warm.converged and fresh.converged and warm.steps < fresh.steps
    assert torch.allclose(warm.derivative, fresh.derivative, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("tolerance", [None, 1e-10])
def test_an_objective_without_the_state_has_a_zero_adjoint(tolerance: float | None) -> None:
    problem = least_squares()
    u, v = at_solution(problem)
    problem.target = u.clone()
    for start in (None, torch.ones_like(u)):
        found = hypergradient(problem, u, v, rough_inverse(problem, u, v, 0.5), start, tolerance)
        assert found.error == 0.0 and not torch.count_nonzero(found.q)
        assert torch.equal(found.derivative, problem.outer_derivatives(u, v)[1])


def test_a_start_with_a_zero_residual_is_converged() -> None:
    problem = least_squares(n=4)
    problem.design = torch.eye(4, dtype=torch.float64)[None]
    problem.mixing = problem.mixing[:, :4]
    problem.data, problem.control = problem.data[:, :4], problem.mixing
    problem.__dict__.pop("hessians", None)
    u, v = at_solution(problem)
    q = problem.outer_derivatives(u, v)[0]
    found = hypergradient(problem, u, v, rough_inverse(problem, u, v, 0.0), q, tolerance=1e-10)
    assert found.converged and found.error == 0.0 and torch.equal(found.q, q)


def test_too_few_refinement_steps_are_reported() -> None:
    problem = least_squares(n=30)
    u, v = at_solution(problem)
    found = hypergradient(problem, u, v, rough_inverse(problem, u, v, 0.9), None, 1e-12, iterations=2)
    assert not found.converged and found.steps == 2 and found.error > 1e-12
