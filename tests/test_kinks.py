"""Difficult problems with bounds and an l1 term and with known optima, on many meshes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from bilevel_problems import Function, diagonal_riesz, normal, riesz, seeded, spd
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.outer.adam import Adam
from nhgd_pde.engine.outer.base import Feasible, OuterMethod
from nhgd_pde.engine.outer.gradient import GradientDescent
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.mma import MMA
from nhgd_pde.engine.outer.newton_cg import NewtonCG
from nhgd_pde.engine.outer.quasi_newton import Pair, QuasiNewton
from nhgd_pde.engine.outer.semismooth import minimise_between_kinks


@dataclass(eq=False)
class Sparse(Function):
    """A function with an l1 term."""

    l1_weights: Tensor | None = None

    @property
    def space(self) -> Feasible:
        return Feasible(self.outer_metric, self.bounds, self.quadratic, None, self.l1_weights)


def shrunk(v: Tensor, by: Tensor) -> Tensor:
    return v.sign() * (v.abs() - by).clamp(min=0.0)


def separable(size: int, bounded: bool, quadratic: bool, seed: int = 0) -> tuple[Sparse, Tensor]:
    """sum_i m_i (a_i/2 v_i^2 - c_i v_i) + w_i |v_i| and its minimiser."""
    g = seeded(seed)
    mass = torch.rand(size, generator=g, dtype=torch.float64) + 0.1
    a = torch.logspace(0.0, 2.0, size, dtype=torch.float64)
    c, weights = 3.0 * normal(g, size), 2.0 * mass * torch.rand(size, generator=g, dtype=torch.float64)
    bound = torch.full((size,), 0.2, dtype=torch.float64)
    bounds = (-0.5 * bound, bound) if bounded else None
    solution = shrunk(c, weights / mass) / a
    if bounds is not None:
        solution = solution.clamp(-0.1, 0.2)
    start = normal(g, size)
    function = Sparse(
        lambda v: (mass * (0.5 * a * v**2 - c * v)).sum(),
        start,
        diagonal_riesz(mass),
        bounds,
        quadratic,
        l1_weights=weights,
    )
    return function, solution


@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("outer", [LBFGS(), NewtonCG(), GradientDescent()])
def test_the_closed_form_of_a_separable_l1_problem(outer: OuterMethod, bounded: bool, quadratic: bool) -> None:
    for seed in range(3):
        problem, solution = separable(30, bounded, quadratic, seed)
        minimum, told = problem.minimise(outer, Stopping(iterations=500, rtol=1e-9))
        v, weights = minimum.last.evaluation.v, problem.l1_weights
        assert minimum.status == "converged", minimum.message
        # Curvatures lie between 1 and 100, and the distance from the minimiser within 101 times the stationarity.
        assert problem.outer_metric.norm((v - solution)[None]) <= 101.0 * minimum.last.gradient_norm + 1e-14
        # Zeros and bounds are exact.
        assert torch.equal(v == 0.0, solution == 0.0) and 3 < int((v == 0.0).sum()) < 27
        if bounded:
            assert torch.equal((v == -0.1) | (v == 0.2), (solution == -0.1) | (solution == 0.2))
        expected = float(problem.value(v)) + float((weights * v.abs()).sum())
        assert minimum.last.evaluation.value == pytest.approx(expected, rel=1e-12)
        values = [iterate.evaluation.value for iterate in told]
        assert all(b <= a + 2e-9 * abs(a) for a, b in pairwise(values))


def lasso(seed: int, size: int = 24) -> Sparse:
    """|A v - b|^2 / 2 + w |v|_1, coupled and ill-conditioned."""
    g = seeded(seed)
    hessian, linear = spd(size, 1e4, g), normal(g, size)
    start = torch.zeros(size, dtype=torch.float64)
    metric = diagonal_riesz(torch.logspace(-0.5, 0.5, size, dtype=torch.float64))
    weights = torch.full((size,), 0.3, dtype=torch.float64)
    return Sparse(lambda v: 0.5 * v @ hessian @ v - linear @ v, start, metric, None, True, l1_weights=weights)


@pytest.mark.parametrize("outer", [LBFGS(40), NewtonCG()])
def test_the_optimality_conditions_of_the_lasso(outer: OuterMethod) -> None:
    for seed in range(6):
        problem = lasso(seed)
        minimum, _ = problem.minimise(outer, Stopping(iterations=300, rtol=1e-10))
        assert minimum.status == "converged", minimum.message
        v, derivative, w = minimum.last.evaluation.v, minimum.last.evaluation.derivative, problem.l1_weights
        zero = v == 0.0
        assert 0 < int(zero.sum()) < len(v)
        assert bool((derivative[zero].abs() <= w[zero] + 1e-8).all())
        assert float((derivative + w * v.sign())[~zero].abs().max()) < 1e-7
        # The exact split v = a - b with a, b >= 0 gives the same optimum in another way.
        twice = Function(
            lambda x, problem=problem: (
                problem.value(x[: len(x) // 2] - x[len(x) // 2 :]) + torch.cat([problem.l1_weights] * 2) @ x
            ),
            torch.zeros(2 * len(v), dtype=torch.float64),
            diagonal_riesz(torch.ones(2 * len(v), dtype=torch.float64)),
            (torch.zeros(2 * len(v), dtype=torch.float64), torch.full((2 * len(v),), 1e6, dtype=torch.float64)),
        )
        split, _ = twice.minimise(LBFGS(40), Stopping(iterations=2000, rtol=1e-8))
        assert minimum.last.evaluation.value == pytest.approx(split.last.evaluation.value, rel=1e-7)


def test_a_large_l1_weight_gives_the_control_zero() -> None:
    problem = lasso(1)
    huge = replace(problem, l1_weights=torch.full_like(problem.l1_weights, 1e3))
    minimum, _ = huge.minimise(LBFGS())
    assert minimum.status == "converged" and minimum.last.iteration == 0 and not bool(minimum.last.evaluation.v.any())
    away, _ = replace(huge, first=torch.ones_like(problem.first)).minimise(LBFGS())
    assert away.status == "converged" and not bool(away.last.evaluation.v.any())
    # With zero weights there is no term.
    free, _ = replace(problem, l1_weights=torch.zeros_like(problem.l1_weights)).minimise(LBFGS(), Stopping(rtol=1e-9))
    plain, _ = Function(problem.value, problem.first, problem.outer_metric, None, True).minimise(LBFGS())
    assert free.last.evaluation.value == pytest.approx(plain.last.evaluation.value, rel=1e-10)


def heat(cells: int, weight: float, penalty: float, bound: float | None) -> Sparse:
    """min |S v - z|^2 / 2 + penalty/2 |v|^2 + weight |v|_1 on (0, 1), S the inverse of -d^2/dx^2, masses 1/cells."""
    h = 1.0 / cells
    x = torch.arange(1, cells, dtype=torch.float64) * h
    n = cells - 1
    matrix = torch.diag(torch.full((n,), 2.0 / h**2, dtype=torch.float64))
    side = torch.full((n - 1,), -1.0 / h**2, dtype=torch.float64)
    inverse = torch.linalg.inv(matrix + torch.diag(side, 1) + torch.diag(side, -1))
    target = torch.where(x > 0.4, 1.0, -0.3) * x * (1.0 - x) * 4.0
    mass = torch.full((n,), h, dtype=torch.float64)
    bounds = None if bound is None else (-bound * torch.ones_like(x), bound * torch.ones_like(x))
    return Sparse(
        lambda v: 0.5 * h * ((inverse @ v - target) ** 2).sum() + 0.5 * penalty * h * (v**2).sum(),
        torch.zeros_like(x),
        diagonal_riesz(mass),
        bounds,
        True,
        l1_weights=weight * mass if weight else None,
    )


@pytest.mark.parametrize(("weight", "bound"), [(1e-3, None), (1e-3, 15.0), (0.0, 15.0)])
@pytest.mark.parametrize("quadratic", [True, False])
def test_kinks_cost_the_same_iterations_on_every_mesh(weight: float, bound: float | None, quadratic: bool) -> None:
    counts, products = [], []
    for cells in (32, 64, 128, 256):
        problem = replace(heat(cells, weight, 1e-6, bound), quadratic=quadratic)
        minimum, _ = problem.minimise(LBFGS(), Stopping(rtol=1e-7))
        assert minimum.status == "converged", minimum.message
        counts.append(len(problem.tried))
        other = replace(problem, tried=[], products=[])
        newton, _ = other.minimise(NewtonCG(), Stopping(rtol=1e-7))
        assert newton.status == "converged" and newton.last.iteration <= 5
        assert newton.last.evaluation.value == pytest.approx(minimum.last.evaluation.value, rel=1e-9)
        products.append(len(other.products))
        v = minimum.last.evaluation.v
        if weight:
            assert 0.05 * cells < int((v == 0.0).sum()) < 0.95 * cells
        if bound is not None:
            assert int((v.abs() == bound).sum()) > 0.2 * cells
    assert max(counts) <= 60 and max(products) <= 100, (counts, products)


def test_the_compact_form_is_the_matrix_of_bfgs() -> None:
    g, size = seeded(4), 12
    mass = torch.rand(size, generator=g, dtype=torch.float64) + 0.5
    hessian = spd(size, 50.0, g)
    matrix = 0.7 * mass.diag()
    pairs = []
    for _ in range(5):
        step = normal(g, size)
        change = hessian @ step
        pairs.append(Pair(step, change, change / mass, 1.0))
        image = matrix @ step
        matrix = matrix - image.outer(image) / (step @ image) + change.outer(change) / (step @ change)
    found, d = QuasiNewton.of(mass, pairs, 0.7), normal(g, size)
    assert torch.allclose(found.product(d), matrix @ d, rtol=1e-10, atol=1e-10)
    free = torch.arange(size) % 3 != 0
    step = found.newton_step(d, free)
    assert not bool(step[~free].any())
    assert torch.allclose(step[free], -torch.linalg.solve(matrix[free][:, free], d[free]), rtol=1e-9, atol=1e-10)
    everything = torch.ones(size, dtype=torch.bool)
    assert torch.allclose(found.newton_step(d, everything), -torch.linalg.solve(matrix, d), rtol=1e-9, atol=1e-10)


def test_rounds_of_the_model_descend_and_end_at_its_minimiser() -> None:
    for seed in range(20):
        g, size = seeded(seed), 15
        problem = replace(lasso(seed, size), bounds=(-0.1 * torch.ones(size), 0.3 * torch.ones(size)))
        space = problem.space
        v = space.project(normal(g, size))
        best = space.completed(problem.evaluate(problem, v, None, None)[0])
        steps = [normal(g, size) for _ in range(6)]
        curved = spd(size, 1e3, g)
        mass = space.mass
        pairs = [Pair(step, curved @ step, curved @ step / mass, 1.0) for step in steps]
        matrix = QuasiNewton.of(mass, pairs, 1.0)
        end = minimise_between_kinks(space, best, matrix)
        way = end - v
        assert torch.equal(space.project(end), end)
        assert space.rate(best.derivative, v, end) + 0.5 * float(way @ matrix.product(way)) < 0.0
        slope = best.derivative + matrix.product(way)
        assert space.distance(end, slope / mass) <= 0.01 * space.stationarity(best)


HARD = {
    "bump": {"control.bounds": [-10, 10], "objective.0.target": "exp(-30*((x-0.3)**2+(y-0.6)**2))"},
    "step": {"control.bounds": [-30, 30], "objective.0.target": "where(x+0.5*y>0.7, 1, -0.5)"},
    "halves": {"control.bounds": [-20, 20], "objective.0.target": "2*sin(2*pi*x)*sin(pi*y) + 0.3*x*y"},
}
# The least share of the nodes at which each bound is active; in the last two cases nearly all are.
SHARES = {"bump": 0.15, "step": 0.4, "halves": 0.45}


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_active_bounds_with_a_tiny_penalty_cost_the_same_solves_on_every_mesh(name: str) -> None:
    overrides = {**HARD[name], "objective.1.weight": 1e-6}
    for method, most in (("auto", 66), ("lbfgs", 130), ("newton_cg", 160)):
        solves = []
        for cells in (16, 32, 64, 128):
            file = {**overrides, "outer.method": method, "mesh.cells": [cells, cells]}
            solution = nhgd.solve(nhgd.load("problems/poisson_control.yaml", file))
            assert solution.status == "converged", solution.message
            for bound in file["control.bounds"]:
                assert (solution.control == bound).mean() >= SHARES[name]
            solves.append(solution.stats["solves"]["solves"])
        assert max(solves) <= most, (method, solves)


@pytest.mark.parametrize("outer", [Adam(), MMA()])
def test_other_methods_refuse_an_l1_term(outer: OuterMethod) -> None:
    problem, _ = separable(4, True, True)
    with pytest.raises(ValueError, match="takes no l1 term"):
        problem.minimise(outer)
    assert not problem.tried


def test_missing_requirements_of_an_l1_term_are_named() -> None:
    with pytest.raises(ValueError, match="an l1 term need a diagonal"):
        Feasible(riesz(spd(3, 10.0, seeded(0))), weights=torch.ones(3))
    with pytest.raises(ValueError, match="at least 0"):
        Feasible(diagonal_riesz(torch.ones(3)), weights=-torch.ones(3))
