"""Newton's method for the state: far starts, long steps, kept factors, failures, and costs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from bilevel_problems import DenseFisherFactors, Explicit, cubic_problem, least_squares, normal, rows, seeded
from torch import Tensor

import nhgd_pde as nhgd
from benchmarks.newton import burgers, by_the_next_step, by_the_residual
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.hypergradient import adjoint_hypergradient
from nhgd_pde.engine.inner_loop import InnerOptions, InnerState, solve_inner
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.reduced_objective import Evaluation
from nhgd_pde.engine.state_newton import Root, newton, solve_from_anywhere
from nhgd_pde.methods.adjoint import Adjoint, ExactDirections
from nhgd_pde.pde_problem import PDEProblem
from problems import problem


@dataclass(frozen=True)
class Factors:
    """Newton directions from the factors of the state equation, counting the points."""

    problem: Any
    v: Tensor
    u: Tensor
    points: list[Tensor] = field(default_factory=list)

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        return self.problem.state_factors(self.u, self.v).solve(residual)

    def belongs(self, u: Tensor) -> bool:
        return self.problem.linear or torch.equal(u, self.u)

    def renewed(self, u: Tensor) -> Factors:
        self.problem.state_factors(u, self.v)
        self.points.append(u)
        return replace(self, u=u)


def root(built: Any, u: Tensor, tolerance: float = 1e-10, steps: int = 150) -> tuple[Root, Factors]:
    """The root from the start u, at zero control."""
    v = torch.zeros(built.outer_size, dtype=torch.float64)
    directions = Factors(built, v, u)
    return newton(built, v, u, directions, tolerance, steps), directions


def semilinear(nonlinearity: str, source: str = "0", cells: int = 16) -> PDEProblem:
    boundary = {"all": {"dirichlet": 0}}
    pde = {"kind": "semilinear", "nonlinearity": nonlinearity, "source": source, "boundary": boundary}
    return problem({"pde": pde, "mesh.cells": [cells, cells]})


EXPONENTIAL = ("exp(u)", "1e4*sin(pi*x)*sin(pi*y)")
CUBIC = ("u**3", "1e5*sin(3*pi*x)*sin(pi*y)")


@pytest.mark.parametrize(
    ("equation", "start", "most"),
    [
        (EXPONENTIAL, 0.0, 15),
        (EXPONENTIAL, 10.0, 15),
        # For exp(u), Newton's method changes u by one in each step.
        (EXPONENTIAL, 100.0, 105),
        (EXPONENTIAL, -100.0, 50),
        (CUBIC, 0.0, 20),
        (CUBIC, 100.0, 20),
        (CUBIC, -100.0, 20),
        (CUBIC, 1e4, 35),
    ],
)
@pytest.mark.parametrize("cells", [8, 24])
def test_stiff_nonlinearities_are_solved_from_far_starts(
    equation: tuple[str, str], start: float, most: int, cells: int
) -> None:
    built = semilinear(*equation, cells)
    u = torch.full(built.inner_shape, start, dtype=torch.float64)
    found, directions = root(built, u)
    assert found.message == "" and found.error <= 1e-10 and found.steps <= most
    # Factors are kept as long as they are useful.
    assert len(directions.points) < found.steps
    near, _ = root(built, found.u, 1e-13)
    assert built.inner_metric.norm(near.u - found.u) <= 1e-9 * built.inner_metric.norm(near.u)


def test_steps_are_not_judged_by_the_residual_which_would_allow_tiny_steps_only() -> None:
    """Convection has an inner layer; if the residual damps the steps, Newton's method needs more than 200."""
    built = burgers(0.01, "sin(2*pi*x)", cells=100)
    u = torch.ones(built.inner_shape, dtype=torch.float64)
    v = torch.zeros(built.outer_size, dtype=torch.float64)
    assert by_the_residual(built, v, u) is None
    steps = by_the_next_step(built, v, u)
    assert steps is not None and steps <= 40


NU = 0.01


@pytest.mark.parametrize("start", [0.0, 1.0, 10.0, 100.0])
def test_convection_is_solved_from_far_starts(start: float) -> None:
    """-nu u'' + u u' = 1 + x with u(0) = 1."""
    pde = {"kind": "burgers", "viscosity": NU, "source": "1 + x", "boundary": {"left": {"dirichlet": 1}}}
    built = problem({"mesh": {"kind": "interval", "cells": [200]}, "pde": pde, "objective.0.target": "x"})
    v = torch.zeros(built.outer_size, dtype=torch.float64)
    u = torch.full(built.inner_shape, start, dtype=torch.float64)
    found = newton(built, v, u, Factors(built, v, u), 1e-10, 50)
    assert found.message == "" and found.steps <= 25
    # u = 1 + x except in a layer of width nu at the right end, where no value is given.
    x = torch.from_numpy(built.space.nodes[0, built.equation.free])
    away = x < 0.8
    assert (found.u[0] - 1.0 - x)[away].abs().max() < 1e-3


def test_a_candidate_that_is_not_finite_is_a_step_too_long() -> None:
    built = semilinear("exp(u)", "1e5*sin(pi*x)*sin(pi*y)")
    u = torch.full(built.inner_shape, -100.0, dtype=torch.float64)
    v = torch.zeros(built.outer_size, dtype=torch.float64)
    full = u - built.state_factors(u, v).solve(built.residual(u, v))
    assert not torch.isfinite(built.residual(full, v)).all()
    found, _ = root(built, u)
    assert found.message == "" and not found.failed


def test_without_a_solution_u_does_not_change() -> None:
    # -lap u = 10 exp(u) has no solution, because the fold is at 6.8.
    built = semilinear("-10*exp(u)")
    for start in (0.0, 3.0):
        u = torch.full(built.inner_shape, start, dtype=torch.float64)
        found, _ = root(built, u)
        assert found.failed and found.error > 0.1 and torch.equal(found.u, u)
        assert found.message == f"no step reduces the inner residual {found.error:.1e}"
    v = torch.zeros(built.outer_size, dtype=torch.float64)
    for oracle in (Adjoint(), NATURAL):
        before = oracle.init(built, u, v)
        evaluation, after = oracle.evaluate(built, v, before, Accuracy(1e-8, 1e-8))
        assert not evaluation.finite and "no step reduces" in evaluation.message
        assert torch.equal(after.u, u)


def test_a_start_that_is_not_finite_is_a_failure() -> None:
    built = semilinear("exp(u)")
    found, _ = root(built, torch.full(built.inner_shape, 1000.0, dtype=torch.float64))
    assert found.failed and "no step reduces" in found.message


# The outer loop

NATURAL = NHGD(InnerOptions(), Factored(), HypergradientOptions())


def control_of(nonlinearity: str) -> PDEProblem:
    boundary = {"all": {"dirichlet": 0}}
    pde = {"kind": "semilinear", "nonlinearity": nonlinearity, "source": 0, "boundary": boundary}
    return problem({"pde": pde, "mesh.cells": [8, 8], "objective.0.target": "sin(pi*x)*sin(pi*y)"})


@pytest.mark.parametrize("nonlinearity", ["-exp(u)", "exp(u)"])
@pytest.mark.parametrize("oracle", [Adjoint(), NATURAL], ids=["adjoint", "nhgd"])
def test_a_first_outer_step_that_is_far_too_long_is_shortened(
    oracle: Any, nonlinearity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations: list[Evaluation] = []
    evaluate = type(oracle).evaluate

    def kept(*arguments: Any) -> Any:
        found = evaluate(*arguments)
        evaluations.append(found[0])
        return found

    monkeypatch.setattr(type(oracle), "evaluate", kept)
    long, usual = (minimise(control_of(nonlinearity), oracle, LBFGS(step=step), Stopping()) for step in (1e9, None))
    assert long.status == usual.status == "converged"
    if nonlinearity == "-exp(u)":
        # With the source at the end of the first step there is no state.
        failed = [each for each in evaluations if not each.finite]
        assert failed
        # Rounding decides whether Newton's method stands still there or wanders until its steps are used up.
        assert all("no step reduces" in each.message or "inner steps left" in each.message for each in failed)
    assert long.last.evaluation.value == pytest.approx(usual.last.evaluation.value, rel=1e-10)


# Costs


@dataclass(eq=False)
class Bilinear(Explicit):
    """R = (K + diag(B v)^2) u - target, which is affine in u but not in (u, v), as for a coefficient as the control."""

    matrix: Tensor = field(default_factory=lambda: torch.empty(0))
    linear: bool = True  # type: ignore[misc]

    def stiffness(self, v: Tensor) -> Tensor:
        return self.matrix + torch.diag_embed((self.control @ v) ** 2)

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        self.counts.residuals += 1
        return rows(self.stiffness(v), u) - self.target

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return rows(self.stiffness(v), w)

    def fisher_factors(self, u: Tensor, v: Tensor) -> DenseFisherFactors:
        self.counts.factorisations += 1
        return DenseFisherFactors(self.stiffness(v).mean(0), self.inner_metric)


@pytest.mark.parametrize("scenarios", [1, 3])
def test_a_problem_that_is_affine_in_u_takes_one_step_wherever_v_is(scenarios: int) -> None:
    base = cubic_problem(4, scenarios)
    built = Bilinear(base.inner_metric, base.outer_metric, base.control, base.target, base.weight, matrix=base.matrix)
    curvature = Factored()
    u, v = built.start()
    state = InnerState(u, curvature.init(built, u, v))
    for k in range(3):
        v = v + 0.3 * normal(seeded(k), built.outer_size)
        before = built.counts.factorisations
        result = solve_inner(built, v, state, curvature, InnerOptions(), 1e-10, seeded(0))
        assert result.converged and result.state.steps == state.steps + 1
        assert built.counts.factorisations == before + 1
        state = result.state
    # The factors stay as long as v does not change.
    again = solve_inner(built, v, replace(state, u=u), curvature, InnerOptions(), 1e-10, seeded(0))
    assert again.converged and again.state.steps == state.steps + 1
    assert built.counts.factorisations == before + 1


@pytest.mark.parametrize("model", ["energy", "residual"])
@pytest.mark.parametrize("oracle", [Adjoint(), NATURAL], ids=["adjoint", "nhgd"])
def test_an_evaluation_of_a_linear_equation_takes_one_step_and_two_solves(oracle: Any, model: str) -> None:
    built = problem({"inner.model": model})
    u, v = built.start()
    state = oracle.init(built, u, v)
    for k in range(3):
        v = normal(seeded(k), built.outer_size)
        before = replace(built.counts)
        evaluation, state = oracle.evaluate(built, v, state, Accuracy(1e-8, 1e-8))
        done = built.counts - before
        assert evaluation.inner_steps == 1 and evaluation.state_error <= 1e-8 and evaluation.adjoint_error <= 1e-8
        # The first evaluation also computes the smallest eigenvalue for the bounds.
        assert k == 0 or (done.solves, done.residuals, done.factorisations) == (2, 2, 0)


@pytest.mark.parametrize("outer", ["lbfgs", "newton_cg"])
def test_nhgd_costs_about_as_much_as_the_adjoint_on_a_semilinear_equation(outer: str) -> None:
    work, values = [], []
    for method in ("nhgd", "adjoint"):
        overrides = {"mesh.cells": [32, 32], "method": method, "outer.method": outer}
        found = nhgd.solve(nhgd.load("problems/semilinear_control.yaml", overrides))
        assert found.status == "converged"
        counts = found.stats["solves"]
        work.append(counts["solves"] + counts["factorisations"])
        values.append(found.objective)
    assert work[0] <= 1.5 * work[1] <= 120
    assert values[0] == pytest.approx(values[1], rel=1e-9)


# The hypergradient by its adjoint variable


def exact_error(built: Explicit, u: Tensor, v: Tensor, p: Tensor) -> float:
    """|grad_u f - J^T p| / |grad_u f| in the dual norm."""
    g = built.outer_derivatives(u, v)[0]
    metric = built.inner_metric
    return metric.dual_norm(g - built.state_product_transposed(u, v, p)) / metric.dual_norm(g)


@pytest.mark.parametrize("scenarios", [1, 3])
@pytest.mark.parametrize("away", [0.0, 1e-3, 0.1, 10.0])
def test_the_adjoint_variable_is_found_from_factors_of_any_point(away: float, scenarios: int) -> None:
    built = cubic_problem(2, scenarios)
    v = normal(seeded(7), built.outer_size)
    u = built.solution(v)
    curvature = Factored()
    there = u + away * normal(seeded(3), *u.shape)
    state = curvature.init(built, there, v)
    before = built.counts.factorisations
    found, after = adjoint_hypergradient(built, u, v, state, lambda: curvature.refresh(state, built, u, v), None, 1e-9)
    assert found.converged and found.error <= 1e-9 and found.p is not None and found.q is None
    assert exact_error(built, u, v, found.p) <= found.error + 1e-14
    exact = built.exact(v)[1]
    assert (found.derivative - exact).norm() <= 1e-7 * exact.norm()
    # Factors of the same point suffice; factors of a far point are dropped early.
    made = built.counts.factorisations - before
    assert made <= (1 if away > 0.0 else 0) and (after is state) == (made == 0)
    if scenarios == 1:
        assert found.steps <= 5
        assert away < 10.0 or made == 1
        assert away > 0.0 or found.steps == 1


def test_without_a_state_in_the_objective_the_adjoint_variable_is_zero() -> None:
    built = least_squares()
    v = normal(seeded(0), built.outer_size)
    u = built.solution(v)
    built.target = u.clone()
    state = Factored().init(built, u, v)
    found, _ = adjoint_hypergradient(built, u, v, state, lambda: state, None, 1e-10)
    assert found.converged and found.error == 0.0 and not torch.count_nonzero(found.p)


def test_scenarios_too_different_for_one_inverse_still_have_an_exact_hypergradient() -> None:
    built = cubic_problem(1, 3, cubic=2.0)
    v = 3.0 * normal(seeded(7), built.outer_size)
    oracle = NHGD(InnerOptions(steps=300), Factored(), HypergradientOptions(tolerance=1e-10))
    u, _ = built.start()
    evaluation, _ = oracle.evaluate(built, v, oracle.init(built, u, v), Accuracy(1e-11, 1e-10))
    assert evaluation.state_error <= 1e-11 and evaluation.adjoint_error <= 1e-10
    exact = built.exact(v)[1]
    assert (evaluation.derivative - exact).norm() <= 1e-8 * exact.norm()


def test_a_relative_residual_is_at_most_the_reported_one() -> None:
    built = semilinear(*CUBIC, 8)
    for tolerance in (1e-2, 1e-6, 1e-12):
        found, _ = root(built, torch.zeros(built.inner_shape, dtype=torch.float64), tolerance)
        v = torch.zeros(built.outer_size, dtype=torch.float64)
        residual = built.inner_metric.dual_norm(built.residual(found.u, v))
        true = residual / built.inner_length(found.u, v)
        assert true <= found.error * (1.0 + 1e-6) and found.error <= tolerance


# There is no state for a source that is large enough, and two for a small one.
BRATU = {
    "name": "bratu",
    "mesh": {"kind": "rectangle", "cells": [8, 8]},
    "pde": {"kind": "semilinear", "nonlinearity": "-exp(u)", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)"},
        {"kind": "regularisation", "weight": 1e-4},
    ],
}


def test_steps_that_run_out_far_from_a_root_have_failed() -> None:
    """A source of 1e9 times the first gradient leaves no state: few steps and many have to say so alike."""
    pde = nhgd.load(BRATU).pde
    u, v = pde.start()
    far = v + 1e7
    for steps in (2, 5, 50):
        found = solve_from_anywhere(pde, far, u, ExactDirections(pde, far, u), 1e-8, steps)
        assert found.failed and found.error > 1.0 and found.message, steps
        assert torch.equal(found.u, u)


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
@pytest.mark.parametrize("steps", [3, 50])
def test_a_trial_point_without_a_state_is_never_an_iterate(method: str, steps: int) -> None:
    """A sum of squares is never negative, whatever the correction by the adjoint variable makes of a lost state."""
    outer = {"method": "lbfgs", "step": 1e9}
    solution = nhgd.solve(nhgd.load({**BRATU, "outer": outer, "method": method, "inner": {"steps": steps}}))
    assert solution.status == "converged", solution.message
    assert all(row["objective"] >= 0.0 and row["state_residual"] < 1.0 for row in solution.history)  # type: ignore[operator]
