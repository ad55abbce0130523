"""Control of heat against exact optima: distributed, from the start, through the boundary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from benchmarks.reference import MPDIST2, extrapolated, mpdist2, orders


def distributed(dim: int, beta: float, n: int) -> nhgd.Solution:
    return nhgd.solve(nhgd.load(mpdist2(dim, beta, n)))


@pytest.mark.parametrize(("dim", "beta"), MPDIST2)
def test_distributed_control_of_heat_reaches_the_published_optimum(dim: int, beta: float) -> None:
    sizes = {1: (8, 16, 32, 64, 128), 2: (4, 8, 16, 32)}[dim]
    solutions = [distributed(dim, beta, n) for n in sizes]
    assert all(solution.status == "converged" for solution in solutions)
    exact = MPDIST2[dim, beta]
    values = [solution.objective for solution in solutions]
    assert orders([abs(value - exact) for value in values])[-1] == pytest.approx(2.0, abs=0.1)
    assert extrapolated(values, (2, 4, 6, 8)) == pytest.approx(exact, rel={1: 1e-11, 2: 5e-7}[dim])
    rate = dim * math.pi**2 / 4
    errors: dict[str, list[float]] = {"state": [], "control": []}
    for solution, n in zip(solutions, sizes, strict=True):
        nodes = solution.problem.space.nodes
        shape = np.prod(np.cos(np.pi * nodes / 2), axis=0)
        amplitude = math.e / (rate * beta) - np.exp(solution.times) / ((1 + rate) * beta)
        stages = (np.arange(n) + 0.5) / n
        control = (math.e - np.exp(stages))[:, None] / beta * shape
        errors["state"].append(float(np.abs(solution.evolution - amplitude[:, None] * shape).max()))
        errors["control"].append(float(np.abs(solution.control.reshape(n, -1) - control).max()))
    for kind, found in errors.items():
        assert orders(found)[-1] == pytest.approx(2.0, abs=0.15), kind


def test_the_optimal_initial_temperature_has_its_closed_form() -> None:
    found = []
    for n in (4, 8):
        values = []
        for steps in (16, 32, 64, 128):
            overrides = {"element": "P2", "mesh.cells": [n, n], "time.steps": steps, "outer.rtol": 1e-10}
            solution = nhgd.solve(nhgd.load("problems/heat_initial.yaml", overrides))
            assert solution.status == "converged"
            cells = solution.problem.control.parts[0].evaluation
            weights = cells.quadrature.weights.reshape(-1)
            phi = torch.sin(torch.pi * cells.quadrature.flat).prod(dim=0)
            control = cells.evaluate(torch.from_numpy(solution.control)[None])[0, 0]
            amplitude = (weights * control * phi).sum() / (weights * phi**2).sum()
            values.append((solution.objective, float(amplitude)))
        found.append([extrapolated(list(each), (1, 2, 3)) for each in zip(*values, strict=True)])
    objective, coefficient = zip(*found, strict=True)
    assert extrapolated(list(objective), (4,)) == pytest.approx(0.00615875711690, rel=5e-5)
    assert extrapolated(list(coefficient), (4,)) == pytest.approx(6.844159438880, rel=1e-4)


def test_boundary_control_of_heat_converges_at_order_two() -> None:
    exact = 0.01 / 8 * (1 + 2 * math.pi**2 + 4 * math.pi**4 / 3) + 0.01 / 1.2
    gaps, errors = [], []
    for n in (6, 12, 24):
        overrides = {"mesh.cells": [n, n], "time.steps": n, "outer.rtol": 1e-10}
        solution = nhgd.solve(nhgd.load("problems/heat_boundary.yaml", overrides))
        assert solution.status == "converged"
        gaps.append(abs(solution.objective - exact))
        y = solution.problem.control.parts[0].nodes[1]
        control = (1 - (np.arange(n) + 0.5) / n)[:, None] * np.cos(np.pi * y)
        errors.append(float(np.sqrt(np.square(solution.control.reshape(n, -1) - control).mean())))
    assert orders(gaps)[-1] == pytest.approx(2.0, abs=0.1) and gaps[-1] < 3e-4 * exact
    # In the mean square; at the corners the order of the largest error is lower, 1.6 to 1.7.
    assert orders(errors)[-1] > 1.9


SHIPPED = {
    "heat_control": {},
    "heat_initial": {"mesh.cells": [8, 8], "time.steps": 8},
    "heat_boundary": {"mesh.cells": [6, 6], "time.steps": 6},
}


@pytest.mark.parametrize("name", SHIPPED)
def test_nhgd_and_the_adjoint_find_the_same_optimum(name: str) -> None:
    ours, exact = (nhgd.solve(nhgd.load(f"problems/{name}.yaml", {"method": m})) for m in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-10)
    assert ours.stats["outer_iterations"] <= 1.2 * exact.stats["outer_iterations"]
    small = nhgd.load(f"problems/{name}.yaml", SHIPPED[name])
    assert nhgd.verify(small).passed


def test_the_adjoint_variable_is_that_of_the_continuous_problem() -> None:
    solution = distributed(1, 0.05, 32)
    adjoint = solution.adjoint[0].reshape(33, -1)
    control = solution.control.reshape(32, -1)
    inside = solution.problem.space.nodes[0] % 1.0 != 0.0
    assert np.abs(adjoint[1:] + 0.05 * control)[:, inside].max() < 2e-3 * np.abs(control).max()


def test_iterations_do_not_depend_on_mesh_and_steps() -> None:
    counts = [distributed(1, 0.01, n).stats["outer_iterations"] for n in (8, 16, 32, 64)]
    assert max(counts) - min(counts) <= 0.2 * max(counts) + 1
