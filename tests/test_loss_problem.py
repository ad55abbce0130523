"""Bilevel problems that are given by two losses: their derivatives, and their optimum by two independent ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bilevel_problems import normal, seeded
from scipy.optimize import minimize
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.linalg.factorisation import SingularMatrixError

FEATURES, ROWS = 6, 20


def _ridge(curved: float = 0.0) -> tuple[nhgd.LossProblem, tuple[Tensor, ...]]:
    """Least squares whose penalties exp(v) of every coefficient are tuned on other rows; `curved`: not quadratic."""
    generator = seeded(3)
    x = normal(generator, 2 * ROWS, FEATURES)
    y = x @ torch.tensor([1.0, -2.0, 0.0, 0.0, 3.0, 0.5], dtype=torch.float64) + 0.5 * normal(generator, 2 * ROWS)
    a, b, c, d = x[:ROWS], y[:ROWS], x[ROWS:], y[ROWS:]

    def inner(u: Tensor, v: Tensor) -> Tensor:
        return 0.5 * (a @ u - b).square().sum() + 0.5 * (v.exp() * u.square()).sum() + curved * u.pow(4).sum()

    def outer(u: Tensor, v: Tensor) -> Tensor:
        return 0.5 * (c @ u - d).square().sum() + 0.05 * v.square().sum()

    zero = torch.zeros(FEATURES, dtype=torch.float64)
    return nhgd.LossProblem(inner, outer, (zero, zero)), (a, b, c, d)


@pytest.mark.parametrize("outer", ["lbfgs", "newton_cg"])
def test_the_optimum_is_that_of_the_closed_form(outer: str) -> None:
    problem, (a, b, _, _) = _ridge()

    def reduced(v: np.ndarray) -> tuple[float, np.ndarray]:
        """Phi and its gradient by differentiating the normal equations."""
        at = torch.tensor(v, requires_grad=True)
        value = problem.outer_loss(torch.linalg.solve(a.T @ a + torch.diag(at.exp()), a.T @ b), at)
        (slope,) = torch.autograd.grad(value, at)
        return float(value.detach()), slope.numpy()

    expected = minimize(reduced, np.zeros(FEATURES), jac=True, method="BFGS", options={"gtol": 1e-11})
    found = nhgd.solve_bilevel(problem, nhgd.BilevelOptions(outer=outer))
    assert found.status == "converged"
    assert found.objective == pytest.approx(expected.fun, rel=1e-12)
    assert found.v == pytest.approx(expected.x, abs=1e-6)
    assert np.linalg.norm(reduced(found.v)[1]) < 1e-7 * np.linalg.norm(reduced(np.zeros(FEATURES))[1])


def test_products_are_derivatives() -> None:
    problem, _ = _ridge(curved=0.3)
    generator = seeded(1)
    u, w, du = (normal(generator, 1, FEATURES) for _ in range(3))
    v, dv = normal(generator, FEATURES), normal(generator, FEATURES)

    def differences(function, dv: Tensor = dv, du: Tensor = du, t: float = 1e-5) -> Tensor:
        return (function(u + t * du, v + t * dv) - function(u - t * du, v - t * dv)) / (2 * t)

    still_u, still_v = torch.zeros_like(u), torch.zeros_like(v)
    pairs = [
        (problem.state_product(u, v, du), differences(problem.residual, dv=still_v)),
        (problem.control_product(u, v, dv), differences(problem.residual, du=still_u)),
        (problem.second_derivative(u, v, w, du, dv)[0], differences(lambda u, v: problem.state_product(u, v, w))),
        (problem.second_derivative(u, v, w, du, dv)[1], differences(lambda u, v: problem.cross_product(u, v, w))),
        (
            problem.outer_second_derivatives(u, v, du, dv)[0],
            differences(lambda u, v: problem.outer_derivatives(u, v)[0]),
        ),
        (
            problem.outer_second_derivatives(u, v, du, dv)[1],
            differences(lambda u, v: problem.outer_derivatives(u, v)[1]),
        ),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    # The transposed product with R_v, and the factors.
    pairing = (problem.control_product(u, v, dv) * w).sum()
    torch.testing.assert_close(pairing, problem.cross_product(u, v, w) @ dv)
    torch.testing.assert_close(problem.state_product(u, v, problem.fisher_factors(u, v).solve(w)), w)


def test_the_wrong_options_are_named() -> None:
    problem, _ = _ridge()
    with pytest.raises(ValueError, match=r"outer: expected one of gradient, .*, found 'sgd'"):
        nhgd.solve_bilevel(problem, nhgd.BilevelOptions(outer="sgd"))
    with pytest.raises(TypeError, match="no scores; use curvature: factored"):
        nhgd.solve_bilevel(problem, nhgd.BilevelOptions(curvature="dense"))


def test_an_inner_loss_that_is_not_convex_is_a_failure() -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    problem = nhgd.LossProblem(lambda u, v: -(u * u).sum() + u @ v, lambda u, v: (u * u).sum(), (zero, zero))
    with pytest.raises(SingularMatrixError, match="not positive definite"):
        problem.fisher_factors(*problem.start())
    found = nhgd.solve_bilevel(problem)
    assert (found.status, "not positive definite" in found.message) == ("failed", True)
