"""Krylov methods, compared with dense linear algebra."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from nhgd_pde.linalg.conjugate_gradients import conjugate_gradients
from nhgd_pde.linalg.conjugate_residuals import preconditioned_residuals
from nhgd_pde.linalg.lanczos import extreme_eigenvalues
from nhgd_pde.linalg.riesz import RieszMap, diagonal_riesz_map
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.linalg.sparse import SparseMatrix
from problems import random, relative


def spd(n: int, seed: int = 0) -> Tensor:
    root = random(n, n, seed=seed)
    return root @ root.T + torch.eye(n, dtype=torch.float64)


def identity(r: Tensor) -> Tensor:
    return r


def test_conjugate_gradients_find_the_solution() -> None:
    a = spd(20)
    x = random(2, 10)

    def operator(v: Tensor) -> Tensor:
        return (a @ v.reshape(-1)).reshape(2, 10)

    found = conjugate_gradients(operator, operator(x), identity, rtol=1e-12)
    assert found.converged and found.error <= 1e-12 and "steps" in found.message
    assert relative(found.solution, x) < 1e-10
    assert found.iterations <= 25


def test_conjugate_gradients_end_with_as_many_steps_as_there_are_eigenvalues() -> None:
    values = torch.tensor([1.0, 1.0, 4.0, 4.0, 9.0, 9.0], dtype=torch.float64)
    found = conjugate_gradients(lambda v: values * v, random(1, 6), identity, rtol=1e-12)
    assert found.converged and found.iterations == 3
    exact = conjugate_gradients(lambda v: values * v, random(1, 6), lambda r: r / values, rtol=1e-12)
    assert exact.converged and exact.iterations == 1


def test_a_warm_start_takes_fewer_steps() -> None:
    a, x = spd(40), random(1, 40)
    b = x @ a
    cold = conjugate_gradients(lambda v: v @ a, b, identity, rtol=1e-8)
    warm = conjugate_gradients(lambda v: v @ a, b, identity, start=x + 1e-6 * random(1, 40, seed=1), rtol=1e-8)
    assert cold.converged and warm.converged and warm.iterations < cold.iterations
    assert relative(warm.solution, x) < 1e-6
    assert relative(warm.residual, b - warm.solution @ a) < 1e-4
    assert warm.error == pytest.approx(float(warm.residual.norm() / b.norm()), rel=1e-10)


@pytest.mark.parametrize("error", [None, lambda x, r: float(r.norm())], ids=["own", "callers"])
def test_an_exact_start_is_the_solution(error: Callable[[Tensor, Tensor], float] | None) -> None:
    x = torch.ones(1, 4, dtype=torch.float64)
    found = conjugate_gradients(lambda v: 2.0 * v, 2.0 * x, identity, start=x, error=error)
    assert found.converged and found.iterations == 0 and torch.equal(found.solution, x)


def test_a_zero_right_hand_side_has_the_zero_solution() -> None:
    zero = torch.zeros(1, 3, dtype=torch.float64)
    found = conjugate_gradients(identity, zero, identity, start=random(1, 3))
    assert found.converged and found.iterations == 0 and torch.equal(found.solution, zero)


@pytest.mark.parametrize("error", [None, lambda x, r: float(r.norm())], ids=["own", "callers"])
@pytest.mark.parametrize(
    ("operator", "preconditioner", "words"),
    [
        (lambda v: v * torch.tensor([1.0, -3.0, 1.0]), identity, "not positive definite"),
        (identity, lambda r: -r, "not positive definite"),
        (identity, lambda r: r * torch.tensor([1.0, 1.0, -5.0]), "not positive definite"),
        (lambda v: v * math.nan, identity, "not finite"),
        (identity, lambda r: r * math.nan, "not finite"),
        (lambda v: v * math.inf, identity, "not finite"),
    ],
    ids=["operator", "negative preconditioner", "indefinite preconditioner", "nan", "nan in P", "inf"],
)
def test_operators_that_are_not_definite_or_finite_are_reported(
    operator: Callable[[Tensor], Tensor],
    preconditioner: Callable[[Tensor], Tensor],
    words: str,
    error: Callable[[Tensor, Tensor], float] | None,
) -> None:
    found = conjugate_gradients(operator, torch.ones(1, 3, dtype=torch.float64), preconditioner, error=error)
    assert not found.converged and words in found.message


def test_too_few_steps_are_reported() -> None:
    a = spd(30)
    found = conjugate_gradients(lambda v: v @ a, random(1, 30), identity, rtol=1e-12, iterations=2)
    assert not found.converged and found.iterations == 2 and found.message.startswith("2 steps left")
    assert found.error == pytest.approx(float(found.residual.norm() / random(1, 30).norm()), rel=1e-12)


def test_the_caller_measures_the_error_after_every_step() -> None:
    a, x = spd(10), random(1, 10)
    b, seen = x @ a, []

    def error(iterate: Tensor, residual: Tensor) -> float:
        seen.append(relative(residual, b - iterate @ a) if not residual.norm() < 1e-6 else 0.0)
        return relative(iterate, x)

    found = conjugate_gradients(lambda v: v @ a, b, identity, rtol=1e-3, error=error)
    assert found.converged and found.error == relative(found.solution, x) <= 1e-3
    assert len(seen) == found.iterations and max(seen) < 1e-8


def identity_metric(n: int) -> RieszMap:
    return diagonal_riesz_map(torch.ones(n, dtype=torch.float64), SparseMatrix(sp.eye(n).tocsr(), symmetric=True))


@pytest.mark.parametrize("near", [0.0, 0.3, 3.0])
def test_preconditioned_residuals_solve_a_system_that_is_not_symmetric(near: float) -> None:
    n = 30
    exact, b = random(n, n) / n**0.5 + 3.0 * torch.eye(n, dtype=torch.float64), random(1, n, seed=1)
    matrix = exact + near * random(n, n, seed=2) / n**0.5
    applied = []

    def preconditioner(r: Tensor) -> Tensor:
        applied.append(r)
        return torch.linalg.solve(exact, r.T).T

    def error(x: Tensor, residual: Tensor) -> float:
        assert torch.allclose(residual, b - x @ matrix.T, atol=1e-11)
        return float(residual.norm() / b.norm())

    found = preconditioned_residuals(
        lambda x: x @ matrix.T, b, preconditioner, identity_metric(n), None, 1e-10, 40, error
    )
    solution = torch.linalg.solve(matrix, b.T).T
    assert found.converged and found.iterations == len(applied)
    assert (found.solution - solution).norm() <= 1e-8 * solution.norm()
    # Iterative refinement would diverge with the last of them.
    radius = torch.linalg.eigvals(torch.linalg.solve(exact, exact - matrix)).abs().max()
    assert found.iterations == 1 if near == 0.0 else found.iterations <= n + 1
    assert (radius > 1.0) == (near == 3.0)
    again = preconditioned_residuals(
        lambda x: x @ matrix.T, b, preconditioner, identity_metric(n), found.solution, 1e-9, 40, error
    )
    assert again.converged and again.iterations == 0 and torch.equal(again.solution, found.solution)


def test_preconditioned_residuals_use_the_given_norm_and_stop_when_it_is_hopeless() -> None:
    n = 30
    matrix, b = random(n, n) / n**0.5 + 3.0 * torch.eye(n, dtype=torch.float64), random(1, n, seed=1)
    arguments = (lambda x: x @ matrix.T, b, lambda r: r / 3.0, identity_metric(n))
    for rtol in (1e-2, 1e-6):
        found = preconditioned_residuals(*arguments, rtol=rtol)
        left = (b - found.solution @ matrix.T).norm() / 3.0
        assert found.converged and found.error <= rtol
        assert float(left / found.solution.norm()) == pytest.approx(found.error, rel=1e-6)
    steps = []

    def hopeless(contraction: float, error: float, step: int) -> bool:
        steps.append(step)
        return step == 3

    stopped = preconditioned_residuals(*arguments, rtol=1e-12, hopeless=hopeless)
    assert not stopped.converged and stopped.iterations == 3 and steps == [2, 3]
    assert preconditioned_residuals(*arguments, rtol=1e-12, iterations=4).iterations == 4


def test_preconditioned_residuals_of_zero_are_zero() -> None:
    zero = torch.zeros(1, 4, dtype=torch.float64)
    found = preconditioned_residuals(lambda x: x, zero, lambda r: r, identity_metric(4), torch.ones_like(zero))
    assert found.converged and found.iterations == 0 and not torch.count_nonzero(found.solution)


def test_extreme_eigenvalues_are_those_of_the_operator() -> None:
    a, k = spd(12), spd(12, seed=1)
    inverse = torch.linalg.inv(k)
    root = torch.linalg.cholesky(inverse)
    exact = torch.linalg.eigvalsh(root.T @ a @ root)

    def inner(x: Tensor, y: Tensor) -> float:
        return dot(x, y @ k)

    low, high = extreme_eigenvalues(lambda v: v @ a @ inverse, inner, random(1, 12), steps=12)
    assert low == pytest.approx(float(exact[0]), rel=1e-8) and high == pytest.approx(float(exact[-1]), rel=1e-8)
    inside = extreme_eigenvalues(lambda v: v @ a @ inverse, inner, random(1, 12), steps=5)
    assert exact[0] < inside[0] < inside[1] < exact[-1]
    assert extreme_eigenvalues(lambda v: 3.0 * v, dot, random(1, 5)) == pytest.approx((3.0, 3.0), rel=1e-12)


@pytest.mark.parametrize("condition", [1e6, 1e8, 1e10, 1e12])
def test_residuals_refine_what_rounding_has_left_of_an_inverse(condition: float) -> None:
    """The inverse is wrong by rounding times the condition number; a residual of 8e-10 was the end at 1e8."""
    size, generator = 40, torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0] for _ in "ab")
    values = torch.logspace(0.0, -math.log10(condition), size, dtype=torch.float64)
    matrix, inverse = left * values @ right, right.T / values @ left.T
    b = torch.randn(1, size, generator=generator, dtype=torch.float64) @ matrix.T
    found = preconditioned_residuals(
        lambda x: x @ matrix.T,
        b,
        lambda r: r @ inverse.T,
        identity_metric(size),
        rtol=1e-13,
        iterations=6,
        error=lambda x, r: float(r.norm() / b.norm()),
    )
    assert found.converged
    assert float((b - found.solution @ matrix.T).norm()) <= 1e-13 * float(b.norm())
