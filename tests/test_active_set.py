"""The active set method: models that bound a quadratic objective from below, between bounds and with an l1 term."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from bilevel_problems import Function, diagonal_riesz, normal, seeded, spd
from scipy.optimize import lsq_linear
from torch import Tensor

import nhgd_pde as nhgd
from benchmarks.newton_baselines import bounds as by_hand
from benchmarks.newton_codes import ours
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.outer.active_set import ActiveSet
from nhgd_pde.engine.outer.base import Feasible
from nhgd_pde.engine.outer.penalty import Penalty, penalty_of
from nhgd_pde.engine.outer.semismooth import Point
from nhgd_pde.engine.outer.spanned_hessian import SpannedHessian, majorised_step, with_product
from nhgd_pde.engine.search import outer_space

BOUNDS = "problems/poisson_bounds.yaml"


@dataclass(eq=False)
class Penalised(Function):
    """1/2 <v, (D + K) v> - <b, v>, perhaps with an l1 term."""

    penalty: Tensor | None = None
    l1_weights: Tensor | None = None

    def penalty_product(self, d: Tensor) -> Tensor:
        return self.penalty @ d


def mass_matrix(size: int) -> Tensor:
    """Of linear elements on an interval whose cells grow."""
    lengths = torch.linspace(0.5, 1.5, size - 1, dtype=torch.float64)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for i, h in enumerate(lengths):
        matrix[i : i + 2, i : i + 2] += h / 6.0 * torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    return matrix


def tracked(
    seed: int, rank: int = 6, size: int = 40, weight: float = 1e-3, l1: float = 0.0
) -> tuple[Penalised, Tensor, Tensor]:
    """A problem whose K has a low rank, D, and K."""
    g, mass = seeded(seed), mass_matrix(size)
    penalty = weight * mass
    rows = normal(g, rank, size) * torch.logspace(0, -2, rank, dtype=torch.float64)[:, None]
    tracking, linear = rows.T @ rows, rows.T @ normal(g, rank)
    bound = torch.full((size,), 0.5, dtype=torch.float64)
    lumped = mass.sum(1)
    problem = Penalised(
        lambda v: 0.5 * v @ (penalty + tracking) @ v - linear @ v,
        torch.zeros(size, dtype=torch.float64),
        diagonal_riesz(lumped),
        (-bound, 0.6 * bound),
        True,
        penalty=penalty,
        l1_weights=l1 * lumped if l1 else None,
    )
    return problem, penalty, tracking


def test_the_model_is_exact_along_products_and_nowhere_above_the_hessian() -> None:
    g, size = seeded(1), 20
    penalty = 0.1 * mass_matrix(size)
    tracking = spd(size, 1e3, g)
    products, steps = (), [normal(g, size) for _ in range(6)]
    for step in steps:
        image = tracking @ step
        products = with_product(products, step, image, float(step @ (image + penalty @ step)))
    matrix = SpannedHessian.of(torch.ones(size), Penalty(lambda d: penalty @ d, penalty.sum(1)), products)
    dense = torch.stack([matrix.product(row) for row in torch.eye(size, dtype=torch.float64)])
    for step in steps:
        assert torch.allclose(dense @ step, (penalty + tracking) @ step, rtol=1e-9, atol=1e-9)
    assert float(torch.linalg.eigvalsh(penalty + tracking - dense).min()) > -1e-10
    # A direction within their span adds nothing, and one along which K is negative is refused.
    inside = 2.0 * steps[0] - steps[3]
    assert with_product(products, inside, tracking @ inside, float(inside @ (tracking + penalty) @ inside)) is products
    assert with_product(products, inside, -tracking @ inside, 1.0) is None
    # The Newton step is good to one per cent in the norm of its preconditioner.
    slope, free = normal(g, size), torch.arange(size) % 3 != 0
    step, exact = matrix.newton_step(slope, free), -torch.linalg.solve(dense[free][:, free], slope[free])
    error = step[free] - exact
    assert not bool(step[~free].any())
    assert float(error @ dense[free][:, free] @ error) <= 0.03**2 * float(exact @ dense[free][:, free] @ exact)


def test_a_safe_step_goes_to_the_minimiser_of_the_larger_model() -> None:
    for seed in range(5):
        problem, penalty, tracking = tracked(seed, l1=0.02)
        space, g = outer_space(problem), seeded(seed + 10)
        v = space.project(normal(g, 40))
        products = ()
        for _ in range(4):
            d = normal(g, 40)
            products = with_product(products, d, tracking @ d, float(d @ (tracking + penalty) @ d))
        matrix = SpannedHessian.of(space.mass, space.penalty, products)
        slope = problem.evaluate(problem, v, None, None)[0].derivative
        reached = majorised_step(space, Point(v, slope), matrix)
        # The model with D is nowhere above the one with the sums of its rows, so that the whole step is taken.
        assert reached.share == 1.0 and torch.equal(space.project(reached.x), reached.x)
        assert torch.allclose(reached.slope, slope + matrix.product(reached.x - v))
        larger = penalty.sum(1).diag() + matrix.images.T @ matrix.images
        left, unit = slope + larger @ (reached.x - v), space.mass / penalty.sum(1)
        assert space.distance(reached.x, left / space.mass, unit) <= 1e-6 * space.distance(v, slope / space.mass, unit)


@pytest.mark.parametrize("weight", [1e-1, 1e-3, 1e-5, 1e-7])
def test_the_method_ends_once_it_has_as_many_products_as_the_rank(weight: float) -> None:
    for seed in range(5):
        problem, penalty, tracking = tracked(seed, weight=weight)
        minimum, told = problem.minimise(ActiveSet(), Stopping(rtol=1e-9))
        assert minimum.status == "converged", minimum.message
        # One product for each direction of K, and a step or two with an exact model.
        assert minimum.last.iteration <= 6 + 2
        factor = torch.linalg.cholesky(penalty + tracking).T
        # |F v - F^-T b|^2 is twice the objective, up to a constant.
        right = torch.linalg.solve(factor.T, -problem.evaluate(problem, problem.first, None, None)[0].derivative)
        low, high = (each.numpy() for each in problem.bounds)
        exact = lsq_linear(factor.numpy(), right.numpy(), (low, high), method="bvls", tol=1e-14).x
        v = minimum.last.evaluation.v
        least = float(problem.value(torch.tensor(exact)))
        assert float(problem.value(v)) == pytest.approx(least, rel=1e-12)
        assert (v - torch.tensor(exact)).abs().max() <= 1e-6
        values = [each.evaluation.value for each in told]
        assert all(b <= a + 1e-14 * abs(a) for a, b in pairwise(values))


def test_l_bfgs_takes_over_where_the_memory_is_full_or_a_curvature_is_negative() -> None:
    problem, _, _ = tracked(3, rank=12)
    expected = problem.minimise(ActiveSet(), Stopping(rtol=1e-10))[0].last.evaluation
    for other in (problem, replace(problem, penalty=1e4 * problem.penalty)):
        # With a penalty that is said to be far larger than it is, what is left of the Hessian is negative.
        minimum, _ = replace(other, tried=[]).minimise(ActiveSet(memory=3), Stopping(iterations=500, rtol=1e-10))
        assert minimum.status == "converged", minimum.message
        assert minimum.last.evaluation.value == pytest.approx(expected.value, rel=1e-12)


def test_penalties_that_are_not_like_a_mass_matrix_are_left_to_other_methods() -> None:
    problem, penalty, _ = tracked(0)
    assert penalty_of(problem) is not None and penalty_of(replace(problem, quadratic=False)) is None
    stiffness = torch.diag(torch.full((40,), 2.0)) - torch.diag(torch.ones(39), 1) - torch.diag(torch.ones(39), -1)
    smooth = torch.linalg.inv(torch.eye(40) + 100.0 * stiffness).double()
    for other in (0.0 * penalty, penalty + stiffness.double(), smooth @ penalty @ smooth):
        assert penalty_of(replace(problem, penalty=other)) is None
        with pytest.raises(ValueError, match="active_set takes quadratic objectives with bounds or an l1 term"):
            replace(problem, penalty=other).minimise(ActiveSet())
    assert Feasible(problem.outer_metric, None, True).penalty is None
    with pytest.raises(ValueError, match="active_set takes quadratic objectives with bounds or an l1 term"):
        replace(problem, bounds=None).minimise(ActiveSet())


def test_the_optimum_of_the_code_by_hand_takes_fewer_solves_on_every_mesh() -> None:
    for cells in (16, 32, 64):
        theirs, solution = by_hand(cells, rtol=1e-11), ours("poisson_bounds", cells)
        assert solution.status == "converged" and solution.stats["outer_iterations"] <= 5
        assert solution.stats["solves"]["solves"] <= 16
        assert solution.objective == pytest.approx(theirs.objective, rel=1e-11)
        control = solution.control.ravel()
        assert abs(control - theirs.control).max() <= 1e-5
        assert ((control == -2.0) | (control == 3.0)).mean() > 0.2


HARD = {
    "the hand-written method cycles": (BOUNDS, {"control.bounds": [-30, 30], "objective.1.weight": 1e-6}, 28),
    "bump": (
        "problems/poisson_control.yaml",
        {
            "control.bounds": [-10, 10],
            "objective.0.target": "exp(-30*((x-0.3)**2+(y-0.6)**2))",
            "objective.1.weight": 1e-6,
        },
        64,
    ),
    "hardly a free node": (
        "problems/poisson_control.yaml",
        {
            "control.bounds": [-30, 30],
            "objective.0.target": "where(x+0.5*y>0.7, 1, -0.5)",
            "objective.1.weight": 1e-6,
        },
        24,
    ),
    "sparse": ("problems/sparse_control.yaml", {}, 18),
    "sparse between bounds": ("problems/sparse_control.yaml", {"control.bounds": [-1, 2]}, 18),
    "one-sided": (BOUNDS, {"control.bounds": [None, 1]}, 16),
    "equal bounds on a half": (BOUNDS, {"control.bounds": ["where(x<0.5,0,-2)", "where(x<0.5,0,3)"]}, 16),
    "start outside the bounds": (BOUNDS, {"control.initial": 10}, 16),
    "constant in every cell": (BOUNDS, {"control.space": "P0"}, 16),
    "in a box": (
        "problems/poisson_control_3d.yaml",
        {"control.bounds": [-3, 3], "mesh.cells": [8, 8, 8]},
        12,
    ),
}


@pytest.mark.parametrize("name", HARD)
def test_solves_and_the_optimum_of_l_bfgs(name: str) -> None:
    file, overrides, most = HARD[name]
    overrides = {"mesh.cells": [32, 32], **overrides}
    found = nhgd.solve(nhgd.load(file, overrides))
    other = nhgd.solve(nhgd.load(file, {**overrides, "outer.method": "lbfgs"}))
    assert found.status == other.status == "converged"
    assert found.stats["solves"]["solves"] <= min(most, other.stats["solves"]["solves"])
    assert found.objective == pytest.approx(other.objective, rel=1e-10)


def test_the_heat_equation_with_bounds() -> None:
    overrides = {"control.bounds": [-10, 5]}
    found = nhgd.solve(nhgd.load("problems/heat_control.yaml", overrides))
    other = nhgd.solve(nhgd.load("problems/heat_control.yaml", {**overrides, "outer.method": "lbfgs"}))
    assert found.status == other.status == "converged"
    assert found.stats["outer_iterations"] <= 5 < other.stats["outer_iterations"]
    assert found.objective == pytest.approx(other.objective, rel=1e-11)


TWO = """
name: two_controls
mesh: {kind: rectangle, cells: [24, 24]}
pde: {kind: poisson, boundary: {left: {dirichlet: 0}, right: {dirichlet: 0}}}
control:
  - {kind: source, name: heat, bounds: [-3, 5]}
  - {kind: neumann, name: flux, on: top, bounds: [-0.5, 0.5]}
objective:
  - {kind: tracking, target: "exp(-30*((x-0.3)**2+(y-0.6)**2))"}
  - {kind: regularisation, weight: 1.0e-7, control: heat}
  - {kind: regularisation, weight: 10, control: flux}
"""


def test_weights_of_two_controls_may_differ_by_orders_of_magnitude(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    found, other = (nhgd.solve(nhgd.load(path, {"outer.method": name})) for name in ("auto", "lbfgs"))
    assert found.status == other.status == "converged"
    assert found.stats["solves"]["solves"] <= min(52, 0.3 * other.stats["solves"]["solves"])
    assert found.objective == pytest.approx(other.objective, rel=1e-10)


@pytest.mark.parametrize("gain", [1e6, 1e-6])
def test_units_of_control_and_objective_change_no_count(gain: float) -> None:
    def solved(gain: float, weight: float) -> nhgd.Solution:
        overrides = {
            "mesh.cells": [16, 16],
            "control.gain": gain,
            "control.bounds": [-2.0 / gain, 3.0 / gain],
            "objective.0.weight": weight,
            "objective.1.weight": 1e-5 * gain * gain * weight,
        }
        return nhgd.solve(nhgd.load(BOUNDS, overrides))

    plain, scaled = solved(1.0, 1.0), solved(gain, 1e-9)
    assert plain.status == scaled.status == "converged"
    assert plain.stats["outer_iterations"] == scaled.stats["outer_iterations"]
    assert plain.stats["solves"] == scaled.stats["solves"]
    assert scaled.objective == pytest.approx(1e-9 * plain.objective, rel=1e-10)


def test_problems_that_the_method_takes_and_those_it_does_not() -> None:
    def method(file: str, overrides: dict[str, object]) -> str:
        return type(nhgd.load(file, overrides).method.outer).__name__

    small = {"mesh.cells": [4, 4]}
    assert method(BOUNDS, small) == method(BOUNDS, {**small, "method": "adjoint"}) == "ActiveSet"
    assert method("problems/sparse_control.yaml", small) == "ActiveSet"
    # Nothing follows from sampled tests; a penalty of the gradient is not like a mass matrix.
    assert method(BOUNDS, {**small, "inner.tests": 8}) == "LBFGS"
    assert method(BOUNDS, {**small, "objective.1.norm": "h1"}) == "NewtonCG"
    assert method("problems/semilinear_control.yaml", {**small, "control.bounds": [-1, 1]}) == "LBFGS"
    with pytest.raises(nhgd.ProblemError, match=r"outer.method: expected another method: active_set takes"):
        nhgd.load("problems/poisson_control.yaml", {**small, "outer.method": "active_set"})
