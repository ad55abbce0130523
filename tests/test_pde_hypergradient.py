"""The hypergradient of PDE problems against the exact discrete adjoint, and whole runs with sampled curvature."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import nhgd_pde as nhgd
from benchmarks.quasilinear import quasilinear_problem
from benchmarks.reference import poisson_control
from nhgd_pde.engine.curvature.base import Curvature
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.reduced_objective import Evaluation
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.verification import verify_problem

TIGHT = Accuracy(1e-12, 1e-12)


def evaluate(problem: PDEProblem, oracle: NHGD | Adjoint, v: torch.Tensor) -> Evaluation:
    u, _ = problem.start()
    return oracle.evaluate(problem, v, oracle.init(problem, u, v), TIGHT)[0]


def gap(problem: PDEProblem, ours: Evaluation, exact: Evaluation) -> float:
    metric = problem.outer_metric
    return metric.norm((ours.gradient - exact.gradient)[None]) / metric.norm(exact.gradient[None])


def test_factored_hypergradient_of_a_nonlinear_equation_is_the_adjoint_gradient() -> None:
    problem = quasilinear_problem()
    oracle = NHGD(InnerOptions(), Factored(), HypergradientOptions(tolerance=1e-11))
    v = problem.start()[1]
    assert gap(problem, evaluate(problem, oracle, v), evaluate(problem, Adjoint(), v)) <= 1e-8


@pytest.mark.parametrize("prior", ["riesz", "identity"])
def test_a_sampled_inverse_is_made_exact_by_refinement(prior: str) -> None:
    problem = quasilinear_problem(8)
    v = problem.start()[1]
    exact = evaluate(problem, Adjoint(), v)
    inner = InnerOptions(tests=64, steps=3000, tolerance=1e-10)
    assert prior in ("riesz", "identity")
    curvature: Curvature = Dense(prior)  # type: ignore[arg-type]
    refined = evaluate(problem, NHGD(inner, curvature, HypergradientOptions(tolerance=1e-11)), v)
    raw = evaluate(problem, NHGD(inner, curvature, HypergradientOptions(refine=False)), v)
    assert refined.state_error <= 1e-9
    assert gap(problem, refined, exact) <= 1e-8
    # Without refinement there is a bias, and the certificate does not underestimate it.
    assert gap(problem, raw, exact) > 1e-4
    assert raw.adjoint_error > 1e-3


def test_taylor_rate_of_the_objective_with_the_hypergradient() -> None:
    problem = quasilinear_problem()
    oracle = NHGD(InnerOptions(), Factored(), HypergradientOptions(tolerance=1e-12))
    v = problem.start()[1]
    base = evaluate(problem, oracle, v)
    nodes = torch.from_numpy(problem.space.nodes)
    direction = torch.cos(2.0 * nodes[0] + nodes[1])
    slope = dot(base.derivative, direction)
    steps = [0.25 * 0.5**k for k in range(4)]
    first = [abs(evaluate(problem, oracle, v + t * direction).value - base.value) for t in steps]
    second = [abs(evaluate(problem, oracle, v + t * direction).value - base.value - t * slope) for t in steps]
    assert min(math.log2(a / b) for a, b in itertools.pairwise(first)) == pytest.approx(1.0, abs=0.2)
    assert min(math.log2(a / b) for a, b in itertools.pairwise(second)) > 1.9


def test_verify_passes_on_a_nonlinear_equation_and_fails_on_a_wrong_derivative() -> None:
    problem = quasilinear_problem()
    assert verify_problem(problem).passed
    wrong = quasilinear_problem()
    right = wrong.objective.state[0].derivative
    object.__setattr__(wrong.objective.state[0], "derivative", lambda u: 1.01 * right(u))
    result = verify_problem(wrong)
    assert not result.passed
    assert "FAIL Taylor rate of the objective" in str(result)


def test_both_methods_find_the_optimum_of_a_nonlinear_problem() -> None:
    stopping, outer = Stopping(rtol=1e-8), LBFGS()
    runs = [
        minimise(quasilinear_problem(), oracle, outer, stopping)
        for oracle in (NHGD(InnerOptions(), Factored(), HypergradientOptions()), Adjoint())
    ]
    assert [run.status for run in runs] == ["converged", "converged"]
    assert runs[0].last.evaluation.value == pytest.approx(runs[1].last.evaluation.value, rel=1e-9)
    assert runs[0].last.iteration <= 1.2 * runs[1].last.iteration


def sampled(cells: int, refine: str, model: str) -> tuple[nhgd.Solution, nhgd.Solution]:
    """A run with sampled tests and a dense inverse, and a run with the exact adjoint."""
    problem = {
        **poisson_control(cells, "sin(2*pi*x)*sin(2*pi*y)", 1e-6),
        "inner": {"model": model, "tests": 64},
        "curvature": {"kind": "dense"},
        "hypergradient": {"refine": refine},
        "outer": {"iterations": 8},
    }
    return nhgd.solve(nhgd.load(problem)), nhgd.solve(nhgd.load({**problem, "method": "adjoint"}))


@pytest.mark.parametrize("model", ["residual", "energy"])
def test_sampled_tests_with_refinement_reach_the_optimum(model: str) -> None:
    run, exact = sampled(16, "auto", model)
    initial_gap = run.stats["objective_initial"] - exact.objective
    assert abs(run.objective - exact.objective) <= 1e-4 * initial_gap
    assert run.certificate.adjoint_residual <= 1e-2


def test_without_refinement_a_run_stagnates_and_reports_it() -> None:
    run, exact = sampled(16, "off", "residual")
    assert run.status == "stopped"
    assert run.certificate.adjoint_residual > 1e-2
    assert "adjoint residual" in run.message
    assert run.objective > exact.objective
