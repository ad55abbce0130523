"""Known optima of controls, which must not depend on meshes and units."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from controls import BOX, FLUX, LEFT, loaded, solved

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build, build_on
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.problem_file.loading import read_problem
from problems import BASE, CPU, mesh_of, slope


def test_controls_at_both_ends_of_an_interval_have_the_known_optimum() -> None:
    """BPN's scalar check: y'' = 2, J = (a^2 + b^2 + a b - 2 b - a + 1)/3 with the optimum (0, 1).

    The target is the discrete state at the optimum, so that the optimum is exact on every mesh.
    """
    overrides = {
        "element": "P2",
        "mesh": {"kind": "interval", "cells": [16]},
        "pde": {"kind": "poisson", "source": -2, "boundary": {"all": {"dirichlet": 0}}},
        "control": [
            {"kind": "dirichlet", "on": "left", "name": "a", "space": "constant"},
            {"kind": "dirichlet", "on": "right", "name": "b", "space": "constant"},
        ],
        "objective": [{"kind": "tracking", "target": "x**2", "weight": 2}],
    }
    pde = build(read_problem(copy.deepcopy(BASE), overrides))
    a, b = 0.3, -0.4
    v = torch.tensor([a, b], dtype=torch.float64)
    state = torch.from_numpy(solved(pde, v))[None]
    assert pde.outer_value(state[:, pde.equation.free], v) == pytest.approx((a * a + b * b + a * b - 2 * b - a + 1) / 3)
    u = state[:, pde.equation.free]
    inner, outer = pde.outer_derivatives(u, v)
    adjoint = pde.state_factors(u, v).solve_transposed(inner)
    derivative = outer - pde.control_product_transposed(u, v, adjoint)
    assert derivative.tolist() == pytest.approx([(2 * a + b - 1) / 3, (2 * b + a - 2) / 3])
    solution = nhgd.solve(nhgd.load(copy.deepcopy(BASE), overrides))
    assert solution.status == "converged"
    assert solution.control == pytest.approx([0.0, 1.0], abs=1e-8)
    assert solution.stats["outer_iterations"] <= 2


def _control_error(solution: nhgd.Solution, exact: Any) -> float:
    """The error of the control in the L2 norm on a part of the boundary."""
    part = solution.problem.control.parts[0]
    points = part.evaluation.quadrature
    found = part.evaluation.evaluate(torch.from_numpy(solution.control)[None])[0, 0].reshape(points.weights.shape)
    return float((points.weights * (found - exact(*points.x)) ** 2).sum().sqrt())


@pytest.mark.parametrize(
    ("name", "optimum", "exact", "order"),
    [
        ("neumann_control", 0.63764347718, lambda x, y: -torch.cos(torch.pi * x) * torch.cos(torch.pi * y), 2.0),
        (
            "dirichlet_control",
            58.5741499180906,
            lambda x, y: -torch.pi * (torch.sin(torch.pi * x) + torch.sin(torch.pi * y)),
            1.5,
        ),
    ],
)
def test_orders_of_boundary_controls(name: str, optimum: float, exact: Any, order: float) -> None:
    cells = [32, 64, 128]
    found = [nhgd.solve(nhgd.load(f"problems/{name}.yaml", {"mesh.cells": [n, n]})) for n in cells]
    sizes = [1.0 / n for n in cells]
    assert slope(sizes, [abs(each.objective - optimum) for each in found]) == pytest.approx(2.0, abs=0.05)
    assert slope(sizes, [_control_error(each, exact) for each in found]) == pytest.approx(order, abs=0.06)
    iterations = [each.stats["outer_iterations"] for each in found]
    assert max(iterations) <= 1.2 * min(iterations) + 1


def test_two_parameters_converge_to_their_known_values() -> None:
    """Up to the error of the elements, which is of order 2."""
    cells = [8, 16, 32, 64]
    found = [nhgd.solve(nhgd.load("problems/parameter_fit.yaml", {"mesh.cells": [n, n]})) for n in cells]
    assert all(each.status == "converged" for each in found)
    errors = [float(np.hypot(each.control[0] - 2.0, each.control[1] - 0.5)) for each in found]
    assert slope([1.0 / n for n in cells], errors) == pytest.approx(2.0, abs=0.1)


def test_a_step_that_makes_a_coefficient_negative_is_shortened() -> None:
    """The first step would make the conductivity negative, so it is shortened."""
    terms = [{"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)"}, {"kind": "regularisation", "weight": 1e-6}]
    source = "2*pi**2*(1 - 0.5*x)*sin(pi*x)*sin(pi*y) + 0.5*pi*cos(pi*x)*sin(pi*y)"
    control = {"kind": "parameter", "name": "a", "initial": 1}
    overrides = {"pde.conductivity": "1 + a*x", "pde.source": source, "control": control, "objective": terms}
    solution = nhgd.solve(loaded({**overrides, "mesh.cells": [32, 32]}))
    assert solution.status == "converged"
    assert solution.control == pytest.approx([-0.5], abs=0.01)


def test_bounds_on_one_of_two_controls() -> None:
    controls = [{"kind": "source"}, {"kind": "neumann", "on": "right", "bounds": [0, 0.1]}]
    solution = nhgd.solve(loaded({"pde.boundary": LEFT, "control": controls}))
    assert solution.status == "converged"
    assert (solution.controls["neumann"] >= 0.0).all() and (solution.controls["neumann"] <= 0.1).all()


def test_bounds_beside_a_penalised_gradient() -> None:
    """The default is Newton's method with bounds in its model; iterations of lbfgs would grow with the mesh."""
    counts = []
    bounded = {"control.bounds": [-5, 10]}
    for n in (8, 16, 32):
        terms = [
            {"kind": "tracking", "target": "exp(-20*((x-0.3)**2+(y-0.6)**2))"},
            {"kind": "regularisation", "norm": "h1", "weight": 1e-5},
        ]
        solution = nhgd.solve(loaded({**bounded, "objective": terms, "mesh.cells": [n, n]}))
        assert solution.status == "converged"
        assert np.isclose(solution.control, 10.0).any()
        counts.append(solution.stats["outer_iterations"])
    assert max(counts) <= 1.5 * min(counts)


def test_the_unit_of_length_changes_nothing() -> None:
    """The inner product of a penalised gradient scales with the region, so iterations do not depend on the unit."""
    counts = []
    for size in (1.0, 1000.0):
        scaled = {
            **FLUX,
            "mesh": {"kind": "rectangle", "size": [size, size], "cells": [16, 16]},
            "pde.source": 0,
            "control.gain": 1.0 / size,
            "objective": [
                {"kind": "tracking", "target": 1},
                {"kind": "regularisation", "norm": "h1", "weight": 1e-3 * size**3},
            ],
        }
        solution = nhgd.solve(loaded(scaled))
        assert solution.status == "converged"
        counts.append(solution.stats["outer_iterations"])
    assert counts[0] == counts[1]


def test_meshes_of_other_kinds_have_boundary_controls() -> None:
    domain = meshes.domain(mesh_of(3, 3))
    pde = build_on(read_problem(copy.deepcopy(BASE), {**BOX, **FLUX}), domain, CPU)
    assert pde.outer_size == 16
