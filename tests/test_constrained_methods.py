from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
import torch
from bilevel_problems import Function, diagonal_riesz, normal, seeded
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.choice.method import Method, build_method
from nhgd_pde.engine.bilevel import Constraint
from nhgd_pde.engine.loop import LoopState, Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.outer.adam import Adam
from nhgd_pde.engine.outer.base import Feasible, OuterMethod
from nhgd_pde.engine.outer.gradient import GradientDescent
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.mma import MMA
from nhgd_pde.engine.outer.multiplier import find_multiplier
from nhgd_pde.engine.outer.newton_cg import NewtonCG
from nhgd_pde.engine.outer.oc import OC
from nhgd_pde.engine.plain import from_plain, to_plain
from nhgd_pde.problem_file.loading import read_problem


@dataclass(frozen=True)
class Inequality:
    """g(v) <= 0, differentiated by torch."""

    function: Callable[[Tensor], Tensor]
    description: str = "an inequality"

    def value(self, v: Tensor) -> float:
        return float(self.function(v))

    def derivative(self, v: Tensor) -> Tensor:
        return torch.func.grad(self.function)(v)


@dataclass(eq=False)
class Constrained(Function):
    """A function with an inequality."""

    constraint: Constraint | None = None

    @property
    def space(self) -> Feasible:
        return Feasible(self.outer_metric, self.bounds, self.quadratic, self.constraint)


def ones(size: int) -> Tensor:
    return torch.ones(size, dtype=torch.float64)


def beam(first: Tensor) -> Constrained:
    """The cantilever beam of five elements (Svanberg 1987): weight subject to the deflection of its tip."""
    stiffness = torch.tensor([61.0, 37.0, 19.0, 7.0, 1.0], dtype=torch.float64)
    return Constrained(
        value=lambda v: 0.0624 * v.sum(),
        first=first,
        outer_metric=diagonal_riesz(ones(5)),
        bounds=(1.0 * ones(5), 10.0 * ones(5)),
        constraint=Inequality(lambda v: (stiffness / v**3).sum() - 1.0, "deflection"),
    )


def beam_optimum() -> Tensor:
    """w = lambda 3 c_j / v_j^4, and the constraint with equality."""
    root = torch.tensor([61.0, 37.0, 19.0, 7.0, 1.0], dtype=torch.float64) ** 0.25
    return root * root.sum() ** (1.0 / 3.0)


@pytest.mark.parametrize("first", [5.0, 9.0])
def test_mma_finds_svanbergs_beam(first: float) -> None:
    problem = beam(first * ones(5))
    minimum, told = problem.minimise(MMA(), Stopping(rtol=1e-7))
    v = minimum.last.evaluation.v
    assert minimum.status == "converged", minimum.message
    # Published: 1.340 at (6.016, 5.309, 4.494, 3.502, 2.153).
    assert minimum.last.evaluation.value == pytest.approx(1.340, abs=5e-4)
    published = torch.tensor([6.016, 5.309, 4.494, 3.502, 2.153], dtype=torch.float64)
    assert float((v - published).abs().max()) < 1e-3
    assert float((v - beam_optimum()).abs().max()) < 1e-5
    assert minimum.last.iteration <= 30
    feasible = [iterate for iterate in told if problem.constraint.value(iterate.evaluation.v) <= 1e-9]
    assert feasible[-1] is told[-1]
    assert all(b.evaluation.value <= a.evaluation.value * (1.0 + 1e-9) for a, b in pairwise(feasible))


def bars(cells: int, total: float = 0.5, coupling: float = 0.0) -> Constrained:
    """min int a / v + coupling/2 (int v w)^2 with int v <= total on (0, 1), midpoints and masses of a graded mesh."""
    edges = torch.linspace(0.0, 1.0, cells + 1, dtype=torch.float64) ** 1.5
    x, mass = 0.5 * (edges[1:] + edges[:-1]), edges.diff()
    load, wave = 0.1 + (3.0 * x).sin() ** 2, (5.0 * x).cos()
    return Constrained(
        value=lambda v: (mass * load / v).sum() + 0.5 * coupling * (mass * wave * v).sum() ** 2,
        first=total * ones(cells),
        outer_metric=diagonal_riesz(mass),
        bounds=(0.1 * ones(cells), 0.7 * ones(cells)),
        constraint=Inequality(lambda v: (mass * v).sum() / total - 1.0, "volume"),
    )


def test_optimality_criteria_find_the_closed_form() -> None:
    problem = bars(200)
    minimum, told = problem.minimise(OC(), Stopping(rtol=1e-9))
    # v = clip(sqrt(a / lambda)), lambda by the volume.
    mass = problem.space.mass
    edges = torch.linspace(0.0, 1.0, 201, dtype=torch.float64) ** 1.5
    root = (0.1 + (1.5 * (edges[1:] + edges[:-1])).sin() ** 2).sqrt()

    def at(scale: float) -> Tensor:
        return (scale * root).clamp(0.1, 0.7)

    scale = scipy.optimize.brentq(lambda s: float((mass * at(s)).sum()) - 0.5, 1e-3, 1e3, xtol=1e-15)
    assert minimum.status == "converged" and minimum.last.iteration <= 4
    assert float((minimum.last.evaluation.v - at(scale)).abs().max()) < 1e-9
    assert all(problem.constraint.value(iterate.evaluation.v) <= 1e-12 for iterate in told[1:])
    assert float((told[1].evaluation.v - told[0].evaluation.v).abs().max()) <= 0.2 + 1e-15
    ours, _ = problem.minimise(MMA(), Stopping(rtol=1e-6))
    assert ours.status == "converged" and float((ours.last.evaluation.v - at(scale)).abs().max()) < 1e-4


def test_optimality_criteria_stop_at_a_small_change_of_the_design() -> None:
    problem = bars(50, coupling=3.0)
    minimum, told = problem.minimise(OC(), Stopping(rtol=1e-12, change=0.01))
    changes = [float((b.evaluation.v - a.evaluation.v).abs().max()) for a, b in pairwise(told)]
    assert [iterate.change for iterate in told[1:]] == pytest.approx(changes)
    assert minimum.status == "converged" and max(changes[-2:]) <= 0.01
    # One small step alone does not end the run.
    assert all(max(pair) > 0.01 for pair in pairwise(changes[:-1]))
    assert f"changed no value by more than {max(changes[-2:]):.1e} (goal 1e-02)" in minimum.message
    uncertain, _ = replace(problem, certificate=1e-3, tried=[]).minimise(OC(), Stopping(rtol=1e-12, change=0.01))
    assert uncertain.status == "stopped" and "change of v is small but not certified" in uncertain.message


@pytest.mark.parametrize("outer", [MMA(), OC()])
def test_iterations_do_not_depend_on_the_mesh(outer: OuterMethod) -> None:
    counts = [
        bars(cells, coupling=1.0).minimise(outer, Stopping(rtol=1e-4))[0].last.iteration
        for cells in (50, 100, 200, 400)
    ]
    assert max(counts) - min(counts) <= 2 and max(counts) <= 40, counts


def random_problem(seed: int, size: int) -> Constrained:
    """A convex quartic between bounds, within a ball that cuts them."""
    g = seeded(seed)
    centre, matrix = 1.5 * normal(g, size), normal(g, size, size) / size**0.5
    middle = 0.3 * normal(g, size)
    return Constrained(
        value=lambda v: ((matrix @ (v - centre)) ** 2).sum() + 0.1 * ((v - centre) ** 4).sum(),
        first=torch.zeros(size, dtype=torch.float64),
        outer_metric=diagonal_riesz(torch.logspace(-0.5, 0.5, size, dtype=torch.float64)),
        bounds=(-ones(size), ones(size)),
        constraint=Inequality(lambda v: ((v - middle) ** 2).sum() / (0.2 * size) - 1.0, "ball"),
    )


@pytest.mark.parametrize("size", [1, 2, 15])
def test_mma_reaches_the_optimum_of_sequential_quadratic_programming(size: int) -> None:
    for seed in range(4):
        problem = random_problem(seed, size)
        minimum, _ = problem.minimise(MMA(), Stopping(iterations=500, rtol=1e-6))
        assert minimum.status == "converged", minimum.message

        def value(x: np.ndarray, problem: Constrained = problem) -> float:
            return float(problem.value(torch.from_numpy(x)))

        def room(x: np.ndarray, problem: Constrained = problem) -> float:
            return -problem.constraint.value(torch.from_numpy(x))

        theirs = scipy.optimize.minimize(
            value,
            problem.first.numpy(),
            method="SLSQP",
            bounds=[(-1.0, 1.0)] * size,
            constraints=[{"type": "ineq", "fun": room}],
            options={"ftol": 1e-13, "maxiter": 500},
        )
        assert minimum.last.evaluation.value <= theirs.fun * (1.0 + 1e-5)
        assert problem.constraint.value(minimum.last.evaluation.v) <= 1e-9


def test_mma_works_without_a_constraint_and_with_fixed_variables() -> None:
    problem = random_problem(3, 8)
    lower, upper = problem.bounds
    fixed = torch.arange(8) % 3 == 0
    problem = replace(
        problem, constraint=None, bounds=(torch.where(fixed, 0.25, lower), torch.where(fixed, 0.25, upper))
    )
    ours, told = problem.minimise(MMA(), Stopping(iterations=500, rtol=1e-6))
    theirs, _ = replace(problem, tried=[]).minimise(LBFGS(), Stopping(rtol=1e-8))
    assert ours.status == theirs.status == "converged"
    assert ours.last.evaluation.value == pytest.approx(theirs.last.evaluation.value, rel=1e-9)
    assert all(b.evaluation.value <= a.evaluation.value * (1.0 + 1e-9) for a, b in pairwise(told))


def test_stationarity_is_zero_at_kkt_points_only() -> None:
    problem = beam(5.0 * ones(5))
    space, optimum = problem.space, beam_optimum()

    def norm(v: Tensor) -> float:
        return space.stationarity(problem.evaluate(problem, v, problem.init(problem, v, v), None)[0])

    assert norm(optimum) < 1e-12
    # The same multiple of the gradient, but at an infeasible point or with an inactive constraint.
    assert norm(0.99 * optimum) > 1e-2 and norm(1.01 * optimum) > 1e-2
    # At a corner of the bounds that violates the constraint no step is possible, but the corner is not a solution.
    corner = replace(problem, bounds=(1.0 * ones(5), 2.0 * ones(5)))
    assert corner.space.stationarity(problem.evaluate(problem, 2.0 * ones(5), None, None)[0]) > 0.1


@pytest.mark.parametrize("root", [1e-12, 1.0, 3e7])
def test_multipliers_of_any_size_are_found(root: float) -> None:
    assert find_multiplier(lambda t: root - t) == pytest.approx(root, rel=1e-14)
    assert find_multiplier(lambda t: -t) == 0.0
    assert find_multiplier(lambda t: (1.0 / 3.0 - t) ** 3) == pytest.approx(1.0 / 3.0, rel=1e-4)
    assert find_multiplier(lambda t: 1.0 + 1.0 / (1.0 + t)) > 1e29


@pytest.mark.parametrize("outer", [LBFGS(), NewtonCG(), GradientDescent(), Adam()])
def test_other_methods_refuse_a_constraint_before_they_evaluate(outer: OuterMethod) -> None:
    problem = bars(5)
    with pytest.raises(ValueError, match=r"takes no constraint \(volume\)"):
        problem.minimise(outer)
    assert not problem.tried


def test_missing_requirements_of_mma_and_optimality_criteria_are_named() -> None:
    problem = bars(5)
    for bounds in (None, (0.0 * ones(5), torch.full((5,), np.inf, dtype=torch.float64))):
        with pytest.raises(ValueError, match=r"mma needs a lower and an upper bound .*control\.bounds"):
            replace(problem, bounds=bounds).minimise(MMA())
    with pytest.raises(ValueError, match=r"lower bounds of at least 0 \(control\.bounds\)"):
        replace(problem, bounds=(-ones(5), ones(5))).minimise(OC())
    with pytest.raises(ValueError, match="oc needs a constraint"):
        replace(problem, constraint=None).minimise(OC())


def test_problem_files_select_mma_and_optimality_criteria() -> None:
    for name, message in (("mma", r"mma needs a lower and an upper bound .*control\.bounds"), ("oc", "oc needs a con")):
        with pytest.raises(nhgd.ProblemError, match=rf"outer\.method: {message}.*, found '{name}'"):
            nhgd.load("problems/poisson_control.yaml", {"outer.method": name})
    overrides = {"mesh.cells": [16, 16], "outer.rtol": 1e-5, "method": "adjoint"}
    ours, theirs = (
        nhgd.solve(nhgd.load("problems/poisson_bounds.yaml", {**overrides, "outer.method": name}))
        for name in ("mma", "lbfgs")
    )
    assert ours.status == theirs.status == "converged"
    assert ours.objective == pytest.approx(theirs.objective, rel=1e-9)
    # The stopping rule for small changes works with every method.
    rough = nhgd.solve(
        nhgd.load("problems/poisson_bounds.yaml", {**overrides, "outer.change": 0.5, "outer.rtol": 1e-12})
    )
    assert rough.status == "converged" and "the control has settled" in rough.message


def test_the_automatic_method_with_a_constraint() -> None:
    file, space = read_problem("problems/poisson_bounds.yaml"), bars(5).space

    def built(method: str) -> Method:
        options = read_problem("problems/poisson_bounds.yaml", {"outer.method": method, "method": "adjoint"})
        return build_method(options, (1, 5), torch.device("cpu"), space)

    assert isinstance(build_method(file, (1, 5), torch.device("cpu"), space).outer, MMA)
    assert built("auto").stopping.change is None and built("oc").stopping.change == 0.01
    assert built("oc").outer == OC() and built("mma").outer == MMA()
    for method in ("lbfgs", "newton_cg", "gradient", "adam"):
        with pytest.raises(nhgd.ProblemError, match=rf"outer\.method: mma and oc take a constraint .*found '{method}'"):
            built(method)


def test_a_run_of_mma_resumes_from_its_state() -> None:
    problem = bars(20, coupling=2.0)
    kept: list[LoopState] = []
    stopping = Stopping(iterations=8, rtol=1e-12)
    whole = minimise(problem, problem, MMA(), stopping, keep=lambda state, last: kept.append(state))
    middle = from_plain(to_plain(replace(kept[4].outer)))
    rest = minimise(problem, problem, MMA(), stopping, resumed=replace(kept[4], outer=middle))
    assert kept[4].current.iteration == 4 and rest.last.iteration == whole.last.iteration == 8
    assert torch.equal(rest.last.evaluation.v, whole.last.evaluation.v)
