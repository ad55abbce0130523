"""Newton-CG: counts that do not depend on the mesh, quadratic convergence, negative curvature, bounds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch
from bilevel_problems import Function, diagonal_riesz, normal, quadratic_function, riesz, rosenbrock, seeded
from test_outer_methods import box_problem, evaluated, relative
from torch import Tensor

import nhgd_pde as nhgd
from benchmarks.quasilinear import quasilinear_problem
from benchmarks.reference import ALPHA, MOTHER_OBJECTIVE, MOTHER_TARGET, poisson_control
from nhgd_pde.engine.bilevel import BilevelProblem
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.loop import Iterate, Minimum, Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Oracle
from nhgd_pde.engine.outer.base import Feasible, HessianProduct
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.newton_cg import NewtonCG
from nhgd_pde.engine.outer.quadratic_model import minimise_model
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.methods.adjoint import Adjoint, AdjointState
from nhgd_pde.problem_file.errors import ProblemError

NATURAL = NHGD(InnerOptions(), Factored(), HypergradientOptions())


@dataclass(frozen=True)
class Counting(Adjoint):
    """The exact adjoint, which records the directions that its Hessian is applied to."""

    products: list[Tensor] = field(default_factory=list)

    def hessian(self, problem: BilevelProblem, v: Tensor, state: AdjointState) -> HessianProduct:
        product = super().hessian(problem, v, state)

        def counted(d: Tensor) -> Tensor:
            self.products.append(d)
            return product(d)

        return counted


def run(problem: BilevelProblem, oracle: Oracle, rtol: float = 1e-9) -> tuple[Minimum, list[Iterate]]:
    told: list[Iterate] = []
    return minimise(problem, oracle, NewtonCG(), Stopping(rtol=rtol), told.append), told


# On equations


def test_the_reference_problem_takes_three_iterations_on_every_mesh() -> None:
    counts = []
    for n in (32, 64, 128):
        oracle = Counting()
        content = poisson_control(n, MOTHER_TARGET, ALPHA)
        content["objective"][0]["target_at"] = "nodes"
        found, _ = run(nhgd.load(content).pde, oracle)
        assert found.status == "converged" and found.last.iteration <= 3
        assert found.last.evaluations == found.last.iteration + 1
        counts.append(len(oracle.products))
    assert found.last.evaluation.value == pytest.approx(MOTHER_OBJECTIVE, rel=2e-4)
    # On finer meshes steps come nearer to the goal, and the last systems need not be solved as well.
    assert counts[0] <= 25 and counts[2] <= counts[1] <= counts[0]


@pytest.mark.parametrize("oracle", [Adjoint(), NATURAL], ids=["adjoint", "nhgd"])
@pytest.mark.parametrize("name", ["semilinear", "quasilinear"])
def test_it_converges_quadratically_to_the_optimum_of_lbfgs(name: str, oracle: Oracle) -> None:
    def make() -> BilevelProblem:
        if name == "quasilinear":
            return quasilinear_problem(10)
        return nhgd.load("problems/semilinear_control.yaml", {"mesh.cells": [12, 12]}).pde

    found, told = run(make(), oracle, rtol=1e-10)
    assert found.status == "converged" and found.last.iteration <= 6
    norms = [iterate.gradient_norm for iterate in told]
    # The forcing term is proportional to the square of the last reduction.
    assert any(after < 0.1 * before**1.5 / norms[0] ** 0.5 < 1e-3 * norms[0] for before, after in pairwise(norms))
    reference = minimise(make(), Adjoint(), LBFGS(), Stopping(rtol=1e-10))
    # Evaluations are as accurate as the gradient that the step should reach.
    assert found.last.evaluation.value == pytest.approx(reference.last.evaluation.value, rel=1e-9)
    assert relative(found.last.evaluation.v, reference.last.evaluation.v) < 1e-6
    assert found.last.evaluations <= found.last.iteration + 3


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_bounds_on_the_control_end_at_the_optimum_of_lbfgs(method: str) -> None:
    overrides = {"mesh.cells": [24, 24], "method": method, "outer.rtol": 1e-10}
    ours, theirs = (
        nhgd.solve(nhgd.load("problems/poisson_bounds.yaml", {**overrides, "outer.method": name}))
        for name in ("newton_cg", "lbfgs")
    )
    assert ours.status == theirs.status == "converged"
    assert ours.stats["outer_iterations"] <= 5 and ours.stats["evaluations"] <= 6
    # Many bounds become active at a time; one after the other would take 550 solves.
    assert ours.stats["solves"]["solves"] < 150
    assert ours.objective == pytest.approx(theirs.objective, rel=1e-12)
    assert abs(ours.control - theirs.control).max() < 1e-7
    assert (ours.control.min(), ours.control.max()) == (-2.0, 3.0)


def test_a_method_without_a_hessian_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"outer.method: expected .* soba has no products with a Hessian, found 'ne"):
        nhgd.load("problems/poisson_control.yaml", {"method": "soba", "outer.method": "newton_cg"})
    function, _, _ = quadratic_function(3, 10.0)
    method, space = NewtonCG(), function.space
    with pytest.raises(ValueError, match="products with the Hessian"):
        method.propose(space, method.init(space, evaluated(function, function.first)))


# On functions


@pytest.mark.parametrize("size", [2, 6, 20])
def test_it_minimises_rosenbrock(size: int) -> None:
    function = rosenbrock(size)
    minimum, told = function.minimise(NewtonCG(), Stopping(rtol=1e-8))
    assert minimum.status == "converged"
    assert minimum.last.evaluation.value < (1e-12 if size == 2 else 4.0)
    assert told[-1].step == told[-2].step == 1.0 and told[-1].gradient_norm < 1e-2 * told[-2].gradient_norm


def test_on_a_quadratic_it_solves_the_linear_system() -> None:
    function, hessian, linear = quadratic_function(40, 1e3)
    minimum, told = function.minimise(NewtonCG(forcing=1e-10))
    assert minimum.status == "converged" and minimum.last.iteration == 1 and told[1].step == 1.0
    assert relative(minimum.last.evaluation.v, torch.linalg.solve(hessian, linear)) < 1e-8


def test_forcing_terms_are_the_relative_residual_of_the_gradient() -> None:
    function, _, _ = quadratic_function(40, 1e3)
    _, told = function.minimise(NewtonCG(forcing=0.2), Stopping(iterations=3, rtol=0.0))
    left = [after.gradient_norm / before.gradient_norm for before, after in pairwise(told)]
    assert 0.02 < left[0] <= 0.2
    for before, after in pairwise(left):
        assert 0.05 * before**2 < after <= 0.9 * before**2


def test_a_change_of_variables_with_its_metric_changes_nothing() -> None:
    change = normal(seeded(3), 6, 6) + 3.0 * torch.eye(6, dtype=torch.float64)
    function = rosenbrock(6)
    histories = []
    for problem in (function, function.transformed(change)):
        _, told = problem.minimise(NewtonCG(), Stopping(iterations=8, rtol=0.0))
        histories.append([iterate.evaluation.value for iterate in told])
    assert histories[0] == pytest.approx(histories[1], rel=1e-7)


def test_directions_of_negative_curvature_are_followed() -> None:
    # A double well in one direction; at the start near its ridge the gradient is almost along the ridge.
    def value(v: Tensor) -> Tensor:
        return (v[0] ** 2 - 1.0) ** 2 + 0.5 * (v[1:] - 1.0).square().sum()

    start = torch.tensor([1e-3, 0.0, 3.0], dtype=torch.float64)
    function = Function(value, start, riesz(torch.eye(3, dtype=torch.float64)))
    minimum, told = function.minimise(NewtonCG())
    assert minimum.status == "converged"
    assert torch.allclose(minimum.last.evaluation.v, torch.ones(3, dtype=torch.float64), atol=1e-6)
    assert all(after.evaluation.value < before.evaluation.value for before, after in pairwise(told))
    # The function is concave in every direction at the start, so the first step is along the negative gradient.
    concave = Function(lambda v: torch.cos(v).sum(), torch.full((3,), 0.1, dtype=torch.float64), function.outer_metric)
    minimum, _ = concave.minimise(NewtonCG())
    assert minimum.status == "converged" and minimum.last.evaluation.value == pytest.approx(-3.0)


@pytest.mark.parametrize("size", [1, 2, 20])
def test_bounds_end_at_the_solution_of_the_active_set_method(size: int) -> None:
    for seed, width in enumerate((0.01, 0.1, 0.3, 1.0)):
        function, expected = box_problem(seed, size, width)
        lower, upper = function.bounds
        for first in (function.first, lower, upper):
            problem = replace(function, first=first, tried=[], products=[])
            minimum, told = problem.minimise(NewtonCG(), Stopping(rtol=1e-9))
            assert minimum.status == "converged", minimum.message
            assert relative(minimum.last.evaluation.v, expected) < 1e-6
            assert minimum.last.iteration <= 6 and len(problem.tried) <= 8
            values = [iterate.evaluation.value for iterate in told]
            assert all(b <= a + 2e-9 * abs(a) for a, b in pairwise(values))
            assert all(((v >= lower) & (v <= upper)).all() for v in problem.tried)


def test_bounds_of_a_function_that_is_not_quadratic() -> None:
    size = 10
    centre = 2.0 * normal(seeded(1), size)

    def value(v: Tensor) -> Tensor:
        return ((v - centre) ** 4).sum() + 5.0 * (v[1:] - v[:-1]).square().sum()

    bound = torch.ones(size, dtype=torch.float64)
    metric = diagonal_riesz(torch.logspace(-1.0, 1.0, size, dtype=torch.float64))
    function = Function(value, 0.0 * bound, metric, (-bound, bound))
    ours, _ = function.minimise(NewtonCG(), Stopping(rtol=1e-9))
    theirs, _ = replace(function, tried=[]).minimise(LBFGS(), Stopping(iterations=1000, rtol=1e-9))
    assert ours.status == theirs.status == "converged" and ours.last.iteration < 0.5 * theirs.last.iteration
    assert relative(ours.last.evaluation.v, theirs.last.evaluation.v) < 1e-7
    assert 2 <= int((ours.last.evaluation.v.abs() == 1.0).sum()) < size


def test_the_model_is_minimised_between_the_bounds() -> None:
    function, expected = box_problem(3, 20, 0.3)
    space: Feasible = function.space
    best = evaluated(function, function.first)
    hessian = function.hessian(function, best.v, None)
    step = minimise_model(space, best, hessian, 1e-9, 5000)
    assert relative(step.end, expected) < 1e-7 and step.reduction <= 1e-9
    assert len(function.products) <= 40
    # With fewer steps it still descends and stays inside the bounds.
    for most in (1, 2, 5, 20):
        end = minimise_model(space, best, hessian, 1e-9, most).end
        rough = end - best.v
        model = dot(best.derivative, rough) + 0.5 * dot(rough, hessian(rough))
        assert model < 0.0 and torch.equal(space.project(end), end)


def test_an_exhausted_search_tries_the_negative_gradient_and_then_gives_up() -> None:
    function, _, _ = quadratic_function(4, 10.0)
    space, method = function.space, NewtonCG()
    state = method.init(space, evaluated(function, function.first))
    best, trials = state.best, 0
    hessian = function.hessian(function, best.v, None)
    directions = []
    while not state.failure:
        v, state = method.propose(space, state, hessian)
        directions.append(state.direction)
        state = method.update(space, state, replace(best, v=v, value=float("nan")))
        trials += 1
    assert trials == 50 and state.best is best and not state.accepted
    assert torch.equal(directions[-1], -best.gradient) and not torch.equal(directions[0], -best.gradient)
