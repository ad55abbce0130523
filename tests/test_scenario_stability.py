"""Errors over scenarios near a resonance: bounds hold although all scenarios share the inverse of the nominal one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bilevel_problems import normal, seeded
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.scenarios.part_equations import SharedInverse, Tolerances, row_lengths
from nhgd_pde.engine.scenarios.scenario_nhgd import ScenarioNHGD
from nhgd_pde.linalg.conjugate_residuals import batched_residuals


def waves(wavenumber: float, width: float, **more: Any) -> nhgd.Problem:
    """Helmholtz with a random wavenumber; the resonance of the unit square is at 4.4429."""
    return nhgd.load(
        {
            "name": "waves",
            "mesh": {"kind": "rectangle", "cells": [6, 6]},
            "element": "P2",
            "pde": {
                "kind": "helmholtz",
                "wavenumber": f"{wavenumber} + {width}*xi",
                "source": "1 + x*y",
                "boundary": {"all": {"dirichlet": 0}},
            },
            "parameters": {"xi": {"uniform": [-1, 1]}},
            "scenarios": {"count": 12, "validation": 0},
            "control": {"kind": "source"},
            "objective": [{"kind": "tracking", "target": "sin(pi*x)*y"}, {"kind": "regularisation", "weight": 1e-2}],
            **more,
        }
    )


RESONANCES = [(4.3, 0.2), (4.35, 0.1), (4.43, 0.01), (5.0, 0.05)]


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
@pytest.mark.parametrize(("wavenumber", "width"), RESONANCES)
def test_reported_errors_of_scenarios_bound_true_ones(wavenumber: float, width: float, tolerance: float) -> None:
    """The errors are those of states and adjoints, with a goal that is met."""
    problem = waves(wavenumber, width).scenarios
    assert problem is not None
    nominal, part = problem.nominal, problem.problem.part(torch.arange(12))
    u, v = nominal.start()
    v = v + 0.3
    inverse = Factored().init(nominal, u, v)
    near = u - nominal.state_factors(u, v).solve(nominal.residual(u, v))
    start, length = near.expand(12, -1).clone(), nominal.inner_metric.norm(near)
    factors = part.state_factors(start, v)
    exact = start - factors.solve(part.residual(start, v))
    # Near a resonance the factors lose digits, which steps of refinement restore.
    for _ in range(3):
        exact = exact - factors.solve(part.residual(exact, v))
    solver = SharedInverse(inverse, Tolerances(tolerance, tolerance, length, length))
    found = solver.states(part, v, start)
    true = row_lengths(part, found.solution - exact)
    assert float((true / found.error).max()) <= 1.3
    assert (
        true <= 1.3 * tolerance * torch.maximum(torch.full_like(true, length), 1e-3 * row_lengths(part, exact))
    ).all()
    right, _ = part.scenario_derivatives(exact, v)
    adjoint = factors.solve_transposed(right)
    # Near a resonance the factors lose digits, which a step of refinement restores.
    adjoint = adjoint + factors.solve_transposed(right - part.state_product_transposed(exact, v, adjoint))
    found = solver.adjoints(part, v, exact, right, torch.zeros_like(right))
    assert float((row_lengths(part, found.solution - adjoint) / found.error).max()) <= 1.3


def test_gains_of_earlier_solves_are_kept() -> None:
    """The error of the start has a tiny residual; without the gain of the earlier solve the start would be accepted."""
    problem = waves(4.35, 0.1).scenarios
    assert problem is not None
    oracle, scenarios = waves(4.35, 0.1).method.oracle, problem.problem
    assert isinstance(oracle, ScenarioNHGD)
    u, v = scenarios.start()
    state = oracle.init(scenarios, u, v)
    grown = oracle.grown(scenarios, oracle.evaluate(scenarios, v, state, Accuracy(1e-6, 1e-6))[1], 0.0, 1.0, 1.0)
    assert grown is not None
    _, reached = oracle.evaluate(scenarios, v, grown, Accuracy(1e-6, 1e-6))
    gains = reached.fine.known.gains
    assert gains is not None and gains.shape[0] == 2 and float(gains.max()) > 5.0
    assert (gains >= 1.0).all()


def test_the_gain_is_the_norm_of_the_inverse_on_the_directions_tried() -> None:
    """In three dimensions all directions are tried."""
    generator = seeded(3)
    matrices = torch.eye(3, dtype=torch.float64) + 0.3 * normal(generator, 4, 3, 3)
    b = normal(generator, 4, 3)

    def product(x: Tensor) -> Tensor:
        return (matrices @ x[:, :, None])[:, :, 0]

    found = batched_residuals(product, b, lambda r: r, lambda x: x, atol=1e-12, gain=b.new_ones(4))
    norms = torch.linalg.matrix_norm(torch.linalg.inv(matrices), 2)
    assert found.gain is not None
    assert torch.allclose(found.gain, norms.clamp(min=1.0), rtol=1e-6)
    assert found.converged and found.iterations <= 4


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
@pytest.mark.parametrize(("wavenumber", "width"), [(4.35, 0.1), (4.43, 0.01)])
def test_certificates_of_runs_over_scenarios_are_of_errors(wavenumber: float, width: float, method: str) -> None:
    problem = waves(wavenumber, width, method=method)
    solution = nhgd.solve(problem)
    assert solution.status == "converged", solution.message
    assert problem.scenarios is not None
    scenarios = problem.scenarios.problem
    v, part = torch.as_tensor(solution.control), scenarios.part(torch.arange(12))
    u = torch.zeros(12, scenarios.inner_shape[1], dtype=torch.float64)
    factors = part.state_factors(u, v)
    exact = -factors.solve(part.residual(u, v))
    # One step of refinement: the factors lose digits near a resonance.
    exact = exact - factors.solve(part.residual(exact, v))
    states = torch.as_tensor(solution.state)[:, torch.from_numpy(part.equation.free)]
    true = part.inner_metric.norm(states - exact) / part.inner_metric.norm(exact)
    assert true <= 3.0 * solution.certificate.state_residual
    assert solution.certificate.state_residual <= 1e-6


def test_a_resumed_run_has_the_gains_of_earlier_solves(tmp_path: Path) -> None:
    whole = nhgd.solve(waves(4.35, 0.1))
    folder = tmp_path / "run"
    nhgd.solve(waves(4.35, 0.1, outer={"iterations": 2}), output=folder)
    resumed = nhgd.solve(waves(4.35, 0.1), output=folder, resume=True)
    assert resumed.status == "converged"
    assert (resumed.control == whole.control).all()
