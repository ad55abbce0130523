"""Conjugate gradients for quadratic objectives: the iterates of exact arithmetic, the end of a run, what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from bilevel_problems import LeastSquares, cubic_problem, least_squares
from bilevel_problems import seeded as generator

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.loop import Iterate, Minimum, Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy, Oracle
from nhgd_pde.engine.outer.conjugate_gradient import ConjugateGradient
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.problem_file.errors import ProblemError

NATURAL = NHGD(InnerOptions(), Factored(), HypergradientOptions())
SOURCE: dict[str, Any] = {"mesh.cells": [12, 12]}


def run(problem: LeastSquares, oracle: Oracle, memory: int = 20, **stopping: Any) -> tuple[Minimum, list[Iterate]]:
    told: list[Iterate] = []
    ended = minimise(problem, oracle, ConjugateGradient(memory), Stopping(**stopping), told.append)
    return ended, told


@pytest.mark.parametrize("oracle", [Adjoint(), NATURAL], ids=["adjoint", "nhgd"])
def test_the_iterates_are_the_minimisers_over_krylov_spaces(oracle: Oracle) -> None:
    """v_k minimises Phi over v_0 + span{g, A g, ...}, A = M^-1 Phi'': found here with an orthonormal basis."""
    problem = least_squares(3, n=8, p=12)
    _, told = run(problem, oracle, rtol=1e-10)
    metric, hessian = problem.outer_metric, problem.reduced_hessian
    start = told[0].evaluation
    vector, basis = start.gradient, torch.zeros(len(start.v), 0)
    for iterate in told[1:6]:
        basis = torch.linalg.qr(torch.cat([basis, vector[:, None]], 1)).Q
        vector = metric.gradient((hessian @ basis[:, -1])[None])[0]
        step = basis @ torch.linalg.solve(basis.T @ hessian @ basis, -basis.T @ start.derivative)
        v = start.v + step
        assert torch.linalg.vector_norm(iterate.evaluation.v - v) <= 1e-8 * torch.linalg.vector_norm(v)


@pytest.mark.parametrize("oracle", [Adjoint(), NATURAL], ids=["adjoint", "nhgd"])
def test_rows_between_two_evaluations_are_those_of_evaluations(oracle: Oracle) -> None:
    problem = least_squares(5)
    ended, told = run(problem, oracle, rtol=1e-10)
    assert ended.status == "converged" and len(told) > 4
    optimum = problem.optimum()
    assert torch.linalg.vector_norm(ended.last.evaluation.v - optimum) <= 1e-7 * torch.linalg.vector_norm(optimum)
    u, _ = problem.start()
    exact = Accuracy(1e-12, 1e-12)
    for iterate in told:
        known = iterate.evaluation
        evaluated, state = oracle.evaluate(problem, known.v, oracle.init(problem, u, known.v), exact)
        assert known.value == pytest.approx(evaluated.value, rel=1e-12)
        first = told[0].gradient_norm
        assert problem.outer_metric.norm((known.gradient - evaluated.gradient)[None]) <= 1e-9 * first
        assert torch.linalg.vector_norm(iterate.oracle.u - state.u) <= 1e-10 * torch.linalg.vector_norm(state.u)


def test_an_iteration_takes_one_solve_with_j_and_one_with_its_transpose() -> None:
    problem = nhgd.load("problems/poisson_control.yaml", SOURCE)
    solves: list[int] = []
    found = nhgd.solve(problem, callback=lambda row: solves.append(int(row["solves"])))
    assert found.status == "converged" and len(solves) > 6
    assert {after - before for before, after in pairwise(solves)} == {2}
    assert found.stats["solves"]["residuals"] == 2, "those of the first and of the last evaluation"


def test_gradients_stay_orthogonal_where_rounding_errors_would_spoil_them() -> None:
    """The product with the Hessian has 20 eigenvalues besides the weight: 21 steps are enough in exact arithmetic."""
    problem = least_squares(0, n=20, p=30, weight=1e-7)
    orthogonal, _ = run(problem, Adjoint(), memory=100, rtol=1e-9)
    alone, _ = run(problem, Adjoint(), memory=1, rtol=1e-9)
    assert orthogonal.status == "converged" and orthogonal.last.iteration <= 21
    assert alone.last.iteration > 21


@pytest.mark.parametrize("oracle", [Adjoint(), NATURAL], ids=["adjoint", "nhgd"])
def test_a_run_that_is_cut_off_ends_with_an_evaluation(oracle: Oracle) -> None:
    problem = least_squares(5)
    ended, told = run(problem, oracle, rtol=1e-12, iterations=3)
    assert ended.status == "stopped" and ended.last.iteration == 3
    assert told[-1].evaluation.blended and not ended.last.evaluation.blended
    # The residuals of the last iterate are known, and no solve was needed for them.
    factors, calls = problem.counts.factorisations, iter(range(100))
    ended = minimise(problem, oracle, ConjugateGradient(), Stopping(rtol=1e-12), None, lambda: next(calls) > 3)
    assert ended.status == "interrupted" and not ended.last.evaluation.blended
    assert 0.0 < ended.last.evaluation.adjoint_error <= 1e-9 and problem.counts.factorisations <= factors + 1


def test_the_gradient_of_a_source_takes_no_mass_solve() -> None:
    pde = nhgd.load("problems/poisson_control.yaml", SOURCE).pde
    w = torch.randn(1, pde.inner_shape[1], generator=generator(0), dtype=torch.float64)
    u, v = pde.start()
    found = pde.represented(w)
    exact = pde.outer_metric.gradient(pde.control_product_transposed(u, v, w)[None])[0]
    assert found is not None and (found - exact).abs().max() <= 1e-11 * exact.abs().max()


@pytest.mark.parametrize(
    "overrides",
    [{"control.gain": "1 + x"}, {"control.space": "P0"}, {"objective.1.norm": "h1"}, {"control.bounds": [0, None]}],
)
def test_other_sources_are_represented_by_a_solve(overrides: dict[str, Any]) -> None:
    pde = nhgd.load("problems/poisson_control.yaml", {**SOURCE, **overrides}).pde
    assert pde.represented(torch.ones(pde.inner_shape, dtype=torch.float64)) is None


def test_a_guess_of_a_gradient_changes_nothing_but_the_work() -> None:
    pde = nhgd.load("problems/poisson_control.yaml", SOURCE).pde
    derivative = torch.randn(1, pde.outer_size, generator=generator(0), dtype=torch.float64)
    exact = pde.outer_metric.gradient(derivative)
    before = pde.counts.riesz_solves
    assert torch.equal(pde.outer_metric.gradient(derivative, exact), exact) and pde.counts.riesz_solves == before
    for guess in (torch.zeros_like(exact), 1.1 * exact, torch.full_like(exact, 1e3)):
        found = pde.outer_metric.gradient(derivative, guess)
        assert (found - exact).abs().max() <= 1e-9 * exact.abs().max()


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ({}, "ConjugateGradient"),
        ({"method": "adjoint"}, "ConjugateGradient"),
        ({"objective.1.norm": "h1"}, "ConjugateGradient"),
        ({"control.bounds": [0, None]}, "ActiveSet"),
        ({"objective.1.norm": "l1"}, "LBFGS"),
        ({"inner.model": "residual", "inner.tests": 16}, "LBFGS"),
        ({"curvature.kind": "dense"}, "LBFGS"),
        ({"pde.kind": "semilinear", "pde.nonlinearity": "u**3"}, "LBFGS"),
    ],
)
def test_it_is_chosen_where_the_objective_is_quadratic_and_its_products_are_exact(
    overrides: dict[str, Any], kind: str
) -> None:
    problem = nhgd.load("problems/poisson_control.yaml", {**SOURCE, **overrides})
    assert type(problem.method.outer).__name__ == kind


@pytest.mark.parametrize(
    "overrides", [{"control.bounds": [0, None]}, {"pde.kind": "semilinear", "pde.nonlinearity": "u**3"}]
)
def test_other_objectives_are_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match="conjugate_gradient takes quadratic objectives without bounds"):
        nhgd.load("problems/poisson_control.yaml", {**SOURCE, **overrides, "outer.method": "conjugate_gradient"})
    with pytest.raises(ValueError, match="quadratic objectives"):
        minimise(cubic_problem(), Adjoint(), ConjugateGradient(), Stopping())


@pytest.mark.parametrize("norm", ["l2", "h1"])
@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_the_optimum_is_that_of_lbfgs(norm: str, method: str) -> None:
    settings = {**SOURCE, "objective.1.norm": norm, "method": method, "outer.rtol": 1e-9}
    found, other = (
        nhgd.solve(nhgd.load("problems/poisson_control.yaml", {**settings, "outer.method": name}))
        for name in ("conjugate_gradient", "lbfgs")
    )
    assert found.status == other.status == "converged"
    assert found.objective == pytest.approx(other.objective, rel=1e-11)
    assert abs(found.control - other.control).max() <= 1e-5 * abs(other.control).max()
    assert found.stats["outer_iterations"] <= 1.3 * other.stats["outer_iterations"]
