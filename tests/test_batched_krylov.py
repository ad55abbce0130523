from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nhgd_pde.linalg.conjugate_gradients import batched_conjugate_gradients, conjugate_gradients
from nhgd_pde.linalg.conjugate_residuals import batched_residuals

S, N = 5, 40


@pytest.fixture
def systems() -> tuple[Tensor, Tensor, Tensor]:
    """(S, n, n) matrices of very different sizes and conditions, right-hand sides, and a mean to precondition with."""
    generator = torch.Generator().manual_seed(3)
    q = torch.linalg.qr(torch.randn(S, N, N, generator=generator, dtype=torch.float64)).Q
    spectra = (
        torch.logspace(0, 1, N, dtype=torch.float64) ** torch.arange(S)[:, None] * 10.0 ** torch.arange(S)[:, None]
    )
    a = q @ (spectra[:, :, None] * q.mT)
    b = torch.randn(S, N, generator=generator, dtype=torch.float64)
    return a, b, a.mean(0)


def product(a: Tensor):
    return lambda x: torch.einsum("sij,sj->si", a, x)


def test_every_row_has_the_iterates_of_its_own_conjugate_gradients(systems: tuple[Tensor, Tensor, Tensor]) -> None:
    a, b, mean = systems
    inverse = torch.linalg.inv(mean)
    for steps in (1, 2, 5):
        found = batched_conjugate_gradients(product(a), b, lambda r: r @ inverse, iterations=steps)
        for s in range(S):
            alone = conjugate_gradients(
                lambda x, s=s: a[s] @ x, b[s], lambda r: inverse @ r, rtol=0.0, iterations=steps
            )
            torch.testing.assert_close(found.solution[s], alone.solution, rtol=1e-9, atol=1e-12)


def test_converged_rows_cost_no_more_applications(
    systems: tuple[Tensor, Tensor, Tensor],
) -> None:
    a, b, _ = systems
    applied = []

    def preconditioner(r: Tensor) -> Tensor:
        applied.append(len(r))
        return r

    found = batched_conjugate_gradients(product(a), b, preconditioner, atol=lambda first: 1e-3 * first)
    assert found.converged
    assert applied[0] == S and applied[-1] < S and sorted(applied, reverse=True) == applied
    assert (found.error <= 1e-3 * b.norm(dim=1)).all()
    torch.testing.assert_close(found.residual, b - product(a)(found.solution), rtol=1e-9, atol=1e-10)
    exact = torch.linalg.solve(a, b)
    assert float(((found.solution - exact).norm(dim=1) / exact.norm(dim=1)).max()) < 1e-2


def test_the_last_step_uses_the_product_that_showed_convergence(
    systems: tuple[Tensor, Tensor, Tensor],
) -> None:
    a, b, _ = systems
    inverse = torch.linalg.inv(a[0])
    count = []

    def preconditioner(r: Tensor) -> Tensor:
        count.append(len(r))
        return r @ inverse

    found = batched_conjugate_gradients(product(a[:1]), b[:1], preconditioner, atol=1e9)
    assert count == [1]
    torch.testing.assert_close(found.solution, torch.linalg.solve(a[:1], b[:1]))


def test_iterations_continue_from_a_start_and_zero_rows_stay_zero(systems: tuple[Tensor, Tensor, Tensor]) -> None:
    a, b, _ = systems
    exact = torch.linalg.solve(a, b)
    b = b.clone()
    b[2] = 0.0
    start = exact.clone()
    start[2] = 0.0
    found = batched_conjugate_gradients(product(a), b, lambda r: r, start=start, atol=1e-8)
    assert found.converged and found.iterations == 1
    assert not torch.count_nonzero(found.solution[2])


def test_matrices_that_are_not_positive_definite_are_reported() -> None:
    b = torch.ones(2, 3, dtype=torch.float64)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None]
    assert "operator" in batched_conjugate_gradients(lambda x: sign * x, b, lambda r: r).message
    assert "preconditioner" in batched_conjugate_gradients(lambda x: x, b, lambda r: sign * r).message
    bad = batched_conjugate_gradients(lambda x: x, b * torch.nan, lambda r: r)
    assert not bad.converged and "finite" in bad.message


def test_matrices_without_symmetry_are_solved_row_by_row(systems: tuple[Tensor, Tensor, Tensor]) -> None:
    a, b, _ = systems
    generator = torch.Generator().manual_seed(5)
    skew = torch.randn(S, N, N, generator=generator, dtype=torch.float64)
    a = torch.eye(N, dtype=torch.float64) + 0.02 * (skew - skew.mT) + 0.01 * skew
    b = b * torch.logspace(-3, 3, S, dtype=torch.float64)[:, None]
    exact = torch.linalg.solve(a, b)
    found = batched_residuals(product(a), b, lambda r: r, lambda x: x, atol=lambda first: 1e-9 * first)
    assert found.converged and 3 < found.iterations < N
    assert float(((found.solution - exact).norm(dim=1) / exact.norm(dim=1)).max()) < 1e-8
    torch.testing.assert_close(found.residual, b - product(a)(found.solution), rtol=1e-6, atol=1e-9)


def test_an_exact_preconditioner_takes_one_step() -> None:
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(S, N, N, generator=generator, dtype=torch.float64) + 10.0 * torch.eye(N, dtype=torch.float64)
    b = torch.randn(S, N, generator=generator, dtype=torch.float64)

    def inverse(r: Tensor) -> Tensor:
        return torch.linalg.solve(a, r)

    found = batched_residuals(product(a), b, inverse, lambda x: x, atol=lambda first: 1e-10 * first)
    assert found.converged and found.iterations == 2
    torch.testing.assert_close(found.solution, inverse(b))
