"""Second derivatives of integrands: kept blocks against differentiation anew; the Gauss-Newton part of a Hessian."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.engine.reduced_hessian import ReducedHessian
from nhgd_pde.pde.second_blocks import SecondBlocks, second_product
from nhgd_pde.pde_problem import PDEProblem


def inversion(target: str) -> PDEProblem:
    """A semilinear equation whose conductivity is exp(v)."""
    file: dict[str, Any] = {
        "name": "inversion",
        "mesh": {"kind": "rectangle", "size": [1, 1], "cells": [7, 6]},
        "pde": {
            "kind": "semilinear",
            "nonlinearity": "u**3",
            "source": "20*sin(pi*x)",
            "boundary": {"all": {"dirichlet": 0}},
        },
        "control": {"kind": "log_conductivity", "initial": "0.3*x"},
        "objective": [{"kind": "tracking", "target": target}, {"kind": "regularisation", "norm": "h1", "weight": 1e-4}],
    }
    return nhgd.load(file).pde


@pytest.mark.parametrize("rows", [1, 3])
def test_kept_blocks_give_the_products_of_anew_differentiation(rows: int) -> None:
    (integral, *_) = inversion("0").equation.integrals
    torch.manual_seed(0)
    points, components = integral.evaluation.quadrature.points, integral.evaluation.components
    state, tests, step = torch.randn(3, components, rows, points, dtype=torch.float64)
    controls, move = torch.randn(2, 1, 1, points, dtype=torch.float64)
    product = second_product(integral, state, controls, tests)
    assert isinstance(product, SecondBlocks) == (rows == 1)
    for given in (step, -3.0 * step):
        expected = integral.second_derivative(state, controls, tests, given, move)
        for own, other in zip(product(given, move), expected, strict=True):
            assert own is not None and other is not None
            assert torch.allclose(own, other, rtol=1e-12, atol=1e-12 * float(other.abs().max()))


def hessian_at_the_solution(problem: PDEProblem) -> ReducedHessian:
    u, v = problem.start()
    for _ in range(12):
        u = u - problem.state_factors(u, v).solve(problem.residual(u, v))
    factors = problem.state_factors(u, v)
    adjoint = factors.solve_transposed(problem.outer_derivatives(u, v)[0])
    return ReducedHessian(problem, u, v, lambda: adjoint, lambda: factors)


def test_the_gauss_newton_part_has_no_negative_curvature_and_leaves_out_the_adjoint_variable() -> None:
    torch.manual_seed(1)
    far = hessian_at_the_solution(inversion("100"))
    d = torch.randn_like(far.v)
    problem, p = far.problem, far.make_adjoint()
    # The rest of the Hessian is linear in the adjoint variable: without it both are the same.
    without = ReducedHessian(problem, far.u, far.v, lambda: torch.zeros_like(p), far.make_factors)
    part = far.gauss_newton(d)
    assert torch.allclose(part, without(d), rtol=1e-10, atol=1e-12 * float(part.abs().max()))
    assert float(d @ part) > 0.0
    # Far from the data the Hessian is another one, and not positive along every direction.
    assert not torch.allclose(part, far(d), rtol=0.1)
