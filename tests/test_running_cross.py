"""The running mean of the cross derivatives: the same numbers in every form, in memory that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bilevel_problems import cubic_problem, least_squares, normal, seeded
from test_scenario_memory import Allocations

import nhgd_pde as nhgd
from nhgd_pde.engine.bilevel import BilevelProblem, InnerBatch
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.inner_loop import InnerOptions, InnerState, solve_inner
from nhgd_pde.engine.running_cross import LocalCross

SQUARE = {"kind": "rectangle", "cells": [5, 5]}
REGULAR = {"kind": "regularisation", "weight": 1e-4}
TRACKING = [{"kind": "tracking", "target": "x*y"}, REGULAR]
ZERO = {"boundary": {"all": {"dirichlet": 0}}}
FILES: dict[str, dict[str, Any]] = {
    "energy form": {"pde": {"kind": "poisson", **ZERO}, "control": {"kind": "source"}},
    "energy form, control in J": {
        "pde": {"kind": "poisson", "source": 1, **ZERO},
        "control": {"kind": "log_conductivity"},
    },
    "energy form, filtered density": {
        "pde": {"kind": "poisson", "source": 1, **ZERO},
        "control": {"kind": "density", "initial": 0.5, "low": 0.1, "filter_radius": 0.3, "bounds": [0, 1]},
    },
    "energy form, control in the boundary values": {
        "pde": {"kind": "poisson", "boundary": {"left": {"dirichlet": 0}, "right": {"dirichlet": 0}}},
        "control": [{"kind": "dirichlet", "on": "right"}, {"kind": "log_conductivity"}],
    },
    "residual form": {
        "pde": {"kind": "advection_diffusion", "velocity": [2, 1], **ZERO},
        "control": [{"kind": "source"}, {"kind": "log_conductivity"}],
    },
    "residual form, nonlinear, filtered": {
        "pde": {"kind": "semilinear", "nonlinearity": "u**3", "source": 1, **ZERO},
        "control": {"kind": "density", "initial": 0.5, "low": 0.1, "filter_radius": 0.3, "bounds": [0, 1]},
    },
    "residual form, evolution": {
        "pde": {"kind": "heat", **ZERO},
        "time": {"end": 0.1, "steps": 4},
        "control": {"kind": "source", "space": "time"},
    },
}


def batches(problem: BilevelProblem, count: int, tests: int) -> tuple[torch.Tensor, list[InnerBatch]]:
    """v, and batches at different points u."""
    u, v = problem.start()
    generator = seeded(1)
    v = v + 0.1 * normal(generator, *v.shape).abs()
    found = []
    for _ in range(count):
        u = u + 0.1 * normal(generator, *u.shape)
        found.append(problem.batch(u, v, problem.sample(tests, generator)))
    return v, found


def check_mean(problem: BilevelProblem, steps: int, tests: int) -> LocalCross:
    """The mean of three batches is that of their cross derivatives one by one."""
    v, found = batches(problem, 3, tests)
    mean = LocalCross(problem, v, steps)
    for each in found:
        mean.add(each)
    q = normal(seeded(2), *problem.inner_shape)
    one_by_one = torch.stack([each.cross(q) for each in found])
    assert float(one_by_one.std(0).norm()) > 0.0 or problem.quadratic
    scale = float(one_by_one.abs().max())
    torch.testing.assert_close(mean(q), one_by_one.mean(0), rtol=0.0, atol=1e-12 * scale)
    return mean


@pytest.mark.parametrize("name", FILES)
def test_the_mean_of_a_state_equation_is_that_of_its_batches(name: str) -> None:
    file = {"name": "small", "mesh": SQUARE, "objective": TRACKING, **FILES[name]}
    problem = nhgd.load(file).pde
    assert problem.model.name in name
    check_mean(problem, 1000, 4)


@pytest.mark.parametrize("scenarios", [1, 3])
@pytest.mark.parametrize("steps", [3, 1000])
def test_factors_and_matrix_give_the_same_mean(scenarios: int, steps: int) -> None:
    """With few columns in all, factors are kept; with many, their sum."""
    problem = cubic_problem(scenarios=scenarios, n=30, p=20)
    mean = check_mean(problem, steps, 1)
    numbers = {3: 3 * scenarios * (30 + 20), 1000: scenarios * 30 * 20}[steps]
    assert mean.bytes == 8 * numbers
    check_mean(least_squares(scenarios=scenarios), steps, 2)


def test_a_problem_may_give_its_cross_derivative_as_a_function_only() -> None:
    from dataclasses import replace

    problem = cubic_problem(n=6)
    v, found = batches(problem, 3, 2)
    mean, q = LocalCross(problem, v, 3), normal(seeded(2), 1, 6)
    for each in found:
        mean.add(replace(each, cross_factors=None))
    torch.testing.assert_close(mean(q), torch.stack([each.cross(q) for each in found]).mean(0))


@pytest.mark.parametrize("model", ["energy", "residual"])
def test_the_memory_does_not_grow_with_the_number_of_steps(model: str) -> None:
    file = {"name": "small", "mesh": SQUARE, "objective": TRACKING, **FILES["energy form"]}
    problem = nhgd.load(file, {"inner.model": model, "curvature.scores": "observed"}).pde
    u, v = problem.start()
    v, backend, peaks = v + 1.0, Dense("identity", 1.0), []
    for steps in (30, 300):
        options = InnerOptions(tests=16, steps=steps, optimiser="sgd", schedule=1e-3, keep_cross=True)
        state = InnerState(u, backend.init(problem, u, v))
        with Allocations() as counted:
            found = solve_inner(problem, v, state, backend, options, 0.0, seeded(0))
        assert found.state.steps == steps and found.cross is not None
        peaks.append(counted.peak)
    assert peaks[1] <= 1.02 * peaks[0], peaks
