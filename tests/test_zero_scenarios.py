"""Scenarios whose state or adjoint is zero or much smaller than those of other scenarios."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from scenario_problems import natural, poisson_2d, scenarios_of

import nhgd_pde as nhgd
from nhgd_pde.engine.scenarios.part_equations import Tolerances
from nhgd_pde.engine.scenarios.part_solution import solve_part

FAULTS = Path(__file__).parent / "faults"


def steady(source: str, target: Any = 0, **pde: Any) -> dict[str, Any]:
    data = {
        "name": "steady",
        "mesh": {"kind": "interval", "cells": 16},
        "parameters": {"q": {"normal": [0, 1]}},
        "pde": {"kind": "poisson", "source": source, "boundary": {"all": {"dirichlet": 0}}, **pde},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": target}, {"kind": "regularisation", "weight": 1e-3}],
        "scenarios": {"sampling": "quadrature", "rule": "tensor", "points": 5, "validation": 0},
    }
    return copy.deepcopy(data)


def test_the_nominal_state_may_be_zero() -> None:
    """E |S q sin + S v|^2 / 2 is least for v = 0, by symmetry: S the solution of the heat equation, q of mean zero."""
    found = nhgd.solve(nhgd.load(FAULTS / "zero_scenario.yaml"))
    assert found.status == "converged", found.message
    assert found.objective == pytest.approx(1.2511249893e-2, rel=1e-8)
    assert abs(found.control).max() < 1e-9


@pytest.mark.parametrize("method", ["nhgd", "adjoint", "sample_average"])
@pytest.mark.parametrize(
    "data",
    [
        steady("q*sin(pi*x)", "sin(pi*x)"),
        steady("q*sin(pi*x)", 0, conductivity="exp(0.3*q)"),
        steady("0*q"),
        steady("(1+q)*sin(pi*x)", "sin(pi*x)/pi**2"),
        steady("exp(9*q)*sin(pi*x)"),
        steady("q*sin(pi*x)", 0, kind="advection_diffusion", conductivity="exp(0.3*q)", velocity=[1]),
    ],
    ids=["zero state", "zero both", "all zero", "zero adjoint", "spread of 1e22", "not symmetric"],
)
def test_steady_scenarios_may_be_zero(data: dict[str, Any], method: str) -> None:
    found = nhgd.solve(nhgd.load({**data, "method": method}))
    reference = nhgd.solve(nhgd.load({**data, "scenarios": {**data["scenarios"], "strategy": "all"}}))
    assert found.status == "converged", found.message
    assert found.objective == pytest.approx(reference.objective, rel=1e-9)


@pytest.mark.parametrize("size", [1e-200, 1e-12, 1e12, 1e200])
def test_right_sides_of_every_size_are_solved(size: float) -> None:
    """The sizes of rows differ by 1e12 and more, and every row reaches the relative tolerance of the nominal one."""
    problem = scenarios_of(poisson_2d(), torch.tensor([[1.0], [2.0], [0.5]], dtype=torch.float64))
    part, inverse = problem.part(torch.arange(3)), natural().init(problem.nominal, *problem.nominal.start()).inner
    v = size * torch.ones(problem.outer_size, dtype=torch.float64)
    zero = torch.zeros(3, problem.inner_shape[1], dtype=torch.float64)
    found = solve_part(part, v, zero, zero, inverse.curvature, Tolerances(1e-10, 1e-10, 0.0, 0.0))
    assert not found.message
    unit = solve_part(part, v / size, zero, zero, inverse.curvature, Tolerances(1e-10, 1e-10, 0.0, 0.0))
    torch.testing.assert_close(found.u / size, unit.u, rtol=1e-9, atol=0.0)
    assert found.state_error < 1e-9
