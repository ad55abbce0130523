"""Common tests of all compared methods: checkpoints, failures, whole runs, options of the problem file."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from bilevel_problems import Explicit, cubic_problem, least_squares, quadratic_function
from hypergradients import EXACT, gap, solved

import nhgd_pde as nhgd
from nhgd_pde.choice.compared_methods import FOR_EVOLUTIONS, METHODS, OVER_SCENARIOS, SEARCHES
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.outer.gradient import GradientDescent
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.plain import from_plain, to_plain
from nhgd_pde.methods.amigo import AmIGO
from nhgd_pde.methods.broyden import Broyden
from nhgd_pde.methods.nbo import NBOCG, NBOGD, NSBOSGD
from nhgd_pde.methods.neumann import Neumann
from nhgd_pde.methods.saba import SABA
from nhgd_pde.methods.soba import SOBA
from nhgd_pde.methods.stocbio import StocBiO
from nhgd_pde.methods.truncated_cg import TruncatedCG
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.schema import ProblemSpec


@pytest.mark.parametrize("name", METHODS)
def test_every_method_resumes_from_a_checkpoint(name: str) -> None:
    problem = cubic_problem()
    v, u = solved(problem)
    oracle: Any = METHODS[name].factory(4, steps=3, inner_steps=2, seed=5)
    state = oracle.evaluate(problem, v, oracle.init(problem, u + 0.1, v), EXACT)[1]
    copy = from_plain(to_plain(state))
    ours, copied = (oracle.evaluate(problem, 1.1 * v, each, EXACT) for each in (state, copy))
    assert ours[0].value == copied[0].value
    assert torch.equal(ours[0].derivative, copied[0].derivative) and torch.equal(ours[1].q, copied[1].q)


@pytest.mark.parametrize("name", METHODS)
def test_a_diverging_method_keeps_its_last_state(name: str) -> None:
    problem = cubic_problem()
    v, u = solved(problem)
    oracle: Any = METHODS[name].factory(4, steps=3, inner_steps=2)
    _, before = oracle.evaluate(problem, v, oracle.init(problem, u + 0.1, v), EXACT)
    failed, after = oracle.evaluate(problem, torch.full_like(v, math.inf), before, EXACT)
    assert not failed.finite and failed.message and after.u is before.u and after.q is before.q
    assert oracle.evaluate(problem, v, after, EXACT)[0].finite


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.tracking])
@pytest.mark.parametrize("problem", [least_squares(n=6, p=4), cubic_problem(1, scenarios=2)])
def test_methods_without_samples_find_the_optimum_by_lbfgs(name: str, problem: Explicit) -> None:
    oracle = METHODS[name].factory(1, steps=1500 if name == "neumann" else None, inner_steps=1500)
    found = minimise(problem, oracle, LBFGS(), Stopping(rtol=1e-7))
    assert found.status == "converged", found.message
    assert gap(problem, found.last.evaluation.v) < 3e-7


def test_a_constant_step_is_shortened_until_the_objective_falls() -> None:
    function, hessian, linear = quadratic_function(6, 30.0, quadratic=False)
    fixed = GradientDescent(search=False)
    found, told = function.minimise(fixed, Stopping(iterations=2000, rtol=1e-6))
    assert found.status == "converged"
    assert torch.allclose(found.last.evaluation.v, torch.linalg.solve(hessian, linear), rtol=1e-4)
    steps = [iterate.step for iterate in told[1:]]
    assert all(later in (sooner, 0.5 * sooner, 0.25 * sooner) for sooner, later in pairwise(steps))
    # A step that is far too long is taken back.
    steep, _, _ = quadratic_function(6, 1e5, quadratic=False)
    _, told = steep.minimise(fixed, Stopping(iterations=100))
    values = [iterate.evaluation.value for iterate in told]
    assert told[-1].evaluations > len(told) and max(values) < 11.0 * abs(values[0]) and values[-1] < values[0]
    # A given step is never changed.
    _, told = function.minimise(GradientDescent(10.0), Stopping(iterations=5))
    assert {iterate.step for iterate in told[1:]} <= {10.0}


FILE = "problems/poisson_control.yaml"


def loaded(**overrides: Any) -> nhgd.Problem:
    return nhgd.load(
        FILE,
        {
            "mesh.cells": 8,
            "objective.0.target_at": "nodes",
            **{key.replace("__", "."): value for key, value in overrides.items()},
        },
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("model", ["energy", "residual"])
def test_every_method_reduces_the_objective_of_a_shipped_problem(name: str, model: str) -> None:
    problem = loaded(method=name, inner__model=model, inner__tests=32, outer__iterations=60)
    reference = nhgd.solve(loaded(method="adjoint"))
    solution = nhgd.solve(problem)
    assert solution.status == ("stopped" if METHODS[name].tracking else "converged"), solution.message
    if METHODS[name].tracking:
        assert solution.objective < 0.5 * reference.stats["objective_initial"]
    else:
        assert solution.objective < 1.000001 * reference.objective
    # The state of the solution belongs to the control, with an error below the certificate.
    assert solution.certificate.state_residual < (0.3 if METHODS[name].tracking else 1e-8)


def test_the_schema_offers_exactly_the_existing_methods() -> None:
    offered = set(get_args(ProblemSpec.model_fields["method"].annotation))
    assert offered == {"nhgd", "adjoint", *METHODS, *FOR_EVOLUTIONS, *OVER_SCENARIOS, *SEARCHES}


def test_options_reach_the_methods() -> None:
    options = {
        "inner__step": 0.25,
        "inner__steps": 7,
        "inner__tests": 9,
        "hypergradient__step": 0.125,
        "hypergradient__steps": 11,
        "seed": 3,
    }
    assert loaded(method="amigo", **options).method.oracle == AmIGO(9, 7, 11, 0.25, 0.125, 3)
    assert loaded(method="stocbio", **options).method.oracle == StocBiO(9, 7, 11, 0.25, 0.125, 3)
    assert loaded(method="soba", **options).method.oracle == SOBA(9, 0.25, 0.125, seed=3)
    assert loaded(method="saba", **options).method.oracle == SABA(9, 0.25, 0.125, seed=3)
    assert loaded(method="neumann", **options).method.oracle == Neumann(7, 11, 0.25, 0.125)
    assert loaded(method="truncated_cg", **options).method.oracle == TruncatedCG(7, 11, 0.25)
    assert loaded(method="broyden", **options).method.oracle == Broyden(7, 11)
    assert loaded(method="nbo_gd", **options).method.oracle == NBOGD(11, 7, linear_step=0.125, seed=3)
    assert loaded(method="nbo_cg", **options).method.oracle == NBOCG(11, 7, seed=3)
    assert loaded(method="nsbo_sgd", **options).method.oracle == NSBOSGD(11, 7, tests=9, linear_step=0.125, seed=3)
    for name in METHODS:
        assert loaded(method=name).method.oracle.name == name
    assert loaded(method="soba").method.outer == GradientDescent(search=False)
    assert loaded(method="soba", outer__step=2.0).method.outer == GradientDescent(2.0, search=False)
    assert loaded(method="soba", outer__method="lbfgs").method.outer == LBFGS(100)
    assert loaded(method="broyden").method.outer == LBFGS(100)
    with pytest.raises(ProblemError, match=r"inner\.tests: expected a number: soba draws samples, found 'all'"):
        loaded(method="soba", inner__tests="all")
