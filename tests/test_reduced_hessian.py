"""Products with the Hessian of the reduced objective, compared with closed forms, differences and each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from bilevel_problems import Explicit, LeastSquares, cubic_problem, least_squares, normal, seeded
from torch import Tensor

from benchmarks.quasilinear import quasilinear_problem
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy, Oracle, SecondOrderOracle
from nhgd_pde.engine.outer.base import HessianProduct
from nhgd_pde.engine.outer.newton_cg import NewtonCG
from nhgd_pde.engine.reduced_hessian import FisherSolves
from nhgd_pde.inner.model import Observation
from nhgd_pde.inner.residual import residual_model
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.pde_problem import PDEProblem
from problems import in_conductivity, problem, quasilinear, slope

TIGHT = HypergradientOptions(tolerance=1e-13, hessian_tolerance=1e-14)
ORACLES: dict[str, Oracle] = {
    "adjoint": Adjoint(),
    "factored": NHGD(InnerOptions(tolerance=1e-14), Factored(), TIGHT),
    "dense": NHGD(InnerOptions(tests=16, steps=1500, tolerance=1e-13), Dense(), TIGHT),
}
SMOOTH = {"adjoint": ORACLES["adjoint"], "factored": ORACLES["factored"]}

EXPLICIT: dict[str, Callable[[], Explicit]] = {
    "quadratic": least_squares,
    "quadratic, three scenarios": lambda: least_squares(1, scenarios=3),
    "cubic": cubic_problem,
    "cubic, two scenarios": lambda: cubic_problem(1, scenarios=2, cubic=0.5),
}


def semilinear(nonlinearity: str = "5*u**3 + x*u", cells: int = 6) -> PDEProblem:
    boundary = {"left": {"dirichlet": "y"}, "right": {"robin": {"coefficient": 2, "value": 1}}}
    pde = {"kind": "semilinear", "nonlinearity": nonlinearity, "source": "20*x", "boundary": boundary}
    return problem({"pde": pde, "mesh.cells": [cells, cells], "objective.1.weight": 1e-3, "control.gain": "1 + y"})


def in_the_conductivity() -> PDEProblem:
    """-div((exp(v) + u^2) grad u) = 2 + 5 v: state and control meet in the second derivatives."""
    built = quasilinear_problem(6)
    (integral,) = built.equation.integrals
    one = torch.ones_like(integral.coefficients["source"])
    coefficients = {**integral.coefficients, "conductivity": one}
    integral = replace(integral, form=quasilinear, coefficients=coefficients, controls=(in_conductivity,))
    equation = replace(built.equation, integrals=(integral,))
    return replace(
        built, equation=equation, model=residual_model(built.space, equation, Observation(), built.control.initial)
    )


NONLINEAR = [semilinear, in_the_conductivity]


def known(oracle: Oracle, built: object, v: Tensor) -> tuple[HessianProduct, object]:
    """Products with the Hessian at v, and the state of the oracle there."""
    assert isinstance(oracle, SecondOrderOracle)
    state = oracle.init(built, built.start()[0], v)
    evaluation, state = oracle.evaluate(built, v, state, Accuracy(1e-14, 1e-14))
    assert evaluation.finite
    return oracle.hessian(built, v, state), state


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=list(ORACLES))
@pytest.mark.parametrize("make", EXPLICIT.values(), ids=list(EXPLICIT))
def test_products_are_those_of_the_exact_hessian(make: Callable[[], Explicit], oracle: Oracle) -> None:
    built = make()
    v = 0.5 * normal(seeded(3), built.outer_size)
    product, _ = known(oracle, built, v)
    axes = torch.eye(built.outer_size, dtype=torch.float64)
    found = torch.stack([product(axis) for axis in axes])
    if isinstance(built, LeastSquares):
        exact = built.reduced_hessian
    else:
        t = 1e-5
        exact = torch.stack([(built.exact(v + t * a)[1] - built.exact(v - t * a)[1]) / (2 * t) for a in axes])
    assert (found - exact).norm() < 1e-7 * exact.norm()


@pytest.mark.parametrize("oracle", SMOOTH.values(), ids=list(SMOOTH))
@pytest.mark.parametrize("make", NONLINEAR)
def test_the_taylor_remainder_of_second_order_falls_with_the_cube_of_the_step(
    make: Callable[[], PDEProblem], oracle: Oracle
) -> None:
    built = make()
    x, y = torch.from_numpy(built.control.parts[0].nodes)
    v, d = torch.cos(3.0 * x), 5.0 * torch.sin(2.0 * x + y)
    product, state = known(oracle, built, v)
    accuracy = Accuracy(1e-14, 1e-14)
    base, _ = oracle.evaluate(built, v, state, accuracy)
    bent = product(d)
    steps = [0.5**k for k in range(5, 10)]
    remainders = []
    for t in steps:
        there, _ = oracle.evaluate(built, v + t * d, state, accuracy)
        quadratic = base.value + t * dot(base.derivative, d) + 0.5 * t**2 * dot(d, bent)
        remainders.append(abs(there.value - quadratic))
    assert slope(steps, remainders) > 2.9


@pytest.mark.parametrize("oracle", SMOOTH.values(), ids=list(SMOOTH))
@pytest.mark.parametrize("make", NONLINEAR)
def test_products_are_symmetric_to_rounding(make: Callable[[], PDEProblem], oracle: Oracle) -> None:
    built = make()
    v, a, b = (normal(seeded(s), built.outer_size) for s in range(3))
    product, _ = known(oracle, built, v)
    assert dot(product(a), b) == pytest.approx(dot(product(b), a), rel=1e-11)


@pytest.mark.parametrize("name", ["adjoint", "factored"])
def test_oracles_agree_in_the_energy_form_and_in_the_residual_form(name: str) -> None:
    products = []
    for model in ("energy", "residual"):
        built = problem({"inner.model": model})
        d = normal(seeded(1), built.outer_size)
        products.append(known(ORACLES[name], built, torch.zeros_like(d))[0](d))
    assert torch.allclose(products[0], products[1], rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("name", ["adjoint", "factored"])
def test_a_point_is_factorised_once_for_all_products(name: str) -> None:
    built = semilinear()
    d = normal(seeded(1), built.outer_size)
    product, _ = known(ORACLES[name], built, torch.zeros_like(d))
    before = replace(built.counts)
    product(d)
    first = built.counts - before
    # The adjoint method uses factors of this point; the factors of NHGD may belong to an earlier point.
    assert first.factorisations <= (0 if name == "adjoint" else 1)
    product(d)
    product(2.0 * d)
    more: Counts = built.counts - before
    assert more.factorisations == first.factorisations
    assert name != "adjoint" or (first.solves, more.solves) == (2, 6)


def test_a_product_without_a_solution_is_nan() -> None:
    built = semilinear()
    u, v = built.start()

    class Useless:
        def solve(self, g: Tensor) -> Tensor:
            return g

    solves = FisherSolves(built, u, v, Useless().solve, 1e-12, 3)
    b = normal(seeded(0), *u.shape)
    assert torch.isnan(solves.solve(b)).all() and torch.isnan(solves.solve_transposed(b)).all()
    good = replace(solves, inverse=built.fisher_factors(u, v).solve)
    factors = built.state_factors(u, v)
    assert (good.solve(b) - factors.solve(b)).norm() < 1e-9 * factors.solve(b).norm()
    exact = factors.solve_transposed(b)
    assert (good.solve_transposed(b) - exact).norm() < 1e-9 * exact.norm()


def test_without_products_newton_falls_back_on_the_gradient() -> None:
    class Blind(Adjoint):
        def hessian(self, problem: object, v: Tensor, state: object) -> HessianProduct:
            return lambda d: torch.full_like(d, math.nan)

    built = cubic_problem()
    found = minimise(built, Blind(), NewtonCG(), Stopping(iterations=2000, rtol=1e-6))
    assert found.status == "converged" and found.last.iteration > 5
