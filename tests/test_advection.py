"""Advection and diffusion: exact solutions, stabilisation against oscillations, a control with a known optimum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import skfem
import torch

import nhgd_pde as nhgd
from benchmarks.reference import control_error, orders
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.second_derivatives import second_derivatives
from nhgd_pde.fem.spaces import space
from nhgd_pde.pde.advection import critical, optimal
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.expressions import Expression
from problems import CPU, mesh_of, problem, random, slope, state_of, write_mesh

FILE = "problems/advection_control.yaml"
# |y* - target|^2 / 2 + alpha |u*|^2 / 2 of the shipped problem, p* = a sin 2 sin 2, u* = -p* / alpha, |velocity| = 1.
K, A, ALPHA = 0.01, 0.05, 0.01
OBJECTIVE = A**2 / 8 * ((8 * math.pi**2 * K) ** 2 + 4 * math.pi**2 + 1 / ALPHA)

elements = pytest.mark.parametrize("element", ["P1", "P2"])
stabilisations = pytest.mark.parametrize("stabilisation", ["none", "auto", "supg"])


def pde(**others: Any) -> dict[str, Any]:
    boundary = {"all": {"dirichlet": 0}}
    given = {"kind": "advection_diffusion", "velocity": [1, 0], "boundary": boundary, **others}
    return {"pde": given, "objective.0.target": "x"}


def solved(built: PDEProblem) -> np.ndarray:
    """All coefficients of the state at zero control."""
    return state_of(built, 1e-10).numpy()


def l2_error(built: PDEProblem, exact: str) -> float:
    """The L2 error by a quadrature much finer than that of the equation."""
    basis = skfem.Basis(built.space.domain.mesh, built.space.basis.elem, intorder=8)
    misfit = np.asarray(basis.interpolate(solved(built)))
    misfit = misfit - Expression(exact).numpy(np.asarray(basis.global_coordinates()))
    return float(np.sqrt((misfit**2 * basis.dx).sum()))


# The state equation

WAVE, ALONG_X, ALONG_Y = "sin(2*x+y)", "2*cos(2*x+y)", "cos(2*x+y)"
CARRIED = f"((1+y)*{ALONG_X} + (x-2)*{ALONG_Y})"
MANUFACTURED: dict[str, dict[str, Any]] = {
    "diffusive": {
        "reaction": "1+x",
        "source": f"(6+x)*{WAVE} + {CARRIED}",
        "boundary": {
            "left": {"dirichlet": WAVE},
            "right": {"robin": {"coefficient": "1+y", "value": f"{WAVE} + {ALONG_X}/(1+y)"}},
            "bottom": {"neumann": f"-({ALONG_Y})"},
            "top": {"neumann": ALONG_Y},
        },
    },
    "advective": {
        "conductivity": 0.01,
        "source": f"0.05*{WAVE} + {CARRIED}",
        "boundary": {
            "left": {"dirichlet": WAVE},
            "top": {"dirichlet": WAVE},
            "right": {"neumann": f"0.01*{ALONG_X}"},
            "bottom": {"robin": {"coefficient": 2, "value": f"{WAVE} - 0.005*{ALONG_Y}"}},
        },
    },
    "matrix": {
        "conductivity": [["0.02+0.01*x", "0.01"], ["0.01*y", "0.01"]],
        "source": f"(0.09+0.04*x+0.02*(1+y))*{WAVE} - 0.02*{ALONG_X} + {CARRIED}",
        "boundary": {"all": {"dirichlet": WAVE}},
    },
}


@elements
@stabilisations
@pytest.mark.parametrize("name", MANUFACTURED)
def test_manufactured_solutions_converge_at_the_order_of_the_element(
    name: str, stabilisation: str, element: str
) -> None:
    errors, sizes = [], []
    for n in (6, 12, 24, 48):
        given = pde(velocity=["1+y", "x-2"], stabilisation=stabilisation, **MANUFACTURED[name])
        errors.append(l2_error(problem({**given, "mesh.cells": [n, n], "element": element}), WAVE))
        sizes.append(1.0 / n)
    # Stabilisation adds tau b.grad phi r(u), which is h times the order of the gradient's error where advection
    # dominates.
    assert slope(sizes[-3:], errors[-3:]) > int(element[1]) + 1 - 0.15


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_the_strong_residual_of_an_exact_solution_vanishes(cell: str) -> None:
    """Quadratic elements find a quadratic solution exactly only if the strong residual is complete."""
    exact = "x**2 + 3*x*y - y**2 + x"
    along = ["(2*x + 3*y + 1)", "(3*x - 2*y)"]
    carried = f"(1+y)*{along[0]} + (x-2)*{along[1]}"
    # -div(k grad u) for k = 0.001 (1 + x), and for the matrix 0.001 [[2 + x, 1], [y, 1]].
    cases: list[tuple[Any, str]] = [
        ("0.001*(1+x)", f"-0.001*{along[0]}"),
        ([["0.001*(2+x)", 0.001], ["0.001*y", 0.001]], f"-0.001*(2*{along[0]} + 2*(2+x) + 3 + 3*y - 2)"),
    ]
    for conductivity, diffused in cases:
        given = pde(
            conductivity=conductivity,
            velocity=["1+y", "x-2"],
            reaction=2,
            source=f"{diffused} + {carried} + 2*({exact})",
            stabilisation="supg",
            boundary={"all": {"dirichlet": exact}},
        )
        built = problem({**given, "mesh.cell": cell, "element": "P2"})
        expected = Expression(exact).numpy(built.space.nodes)
        assert np.abs(solved(built) - expected).max() < 1e-10
        assert built.equation.integrals[0].evaluation.fields == 2


@pytest.mark.parametrize("peclet", [0.3, 1.0, 7.0, 1000.0])
def test_linear_elements_in_one_dimension_are_exact_at_the_nodes(peclet: float) -> None:
    """-k u'' + u' = 1, u(0) = u(1) = 0: u = x - (exp((x-1)/k) - exp(-1/k)) / (1 - exp(-1/k))."""
    n = 16
    k = 1 / (2 * n * peclet)
    mesh = {"mesh": {"kind": "interval", "cells": [n]}}
    given = pde(conductivity=k, velocity=[1], source=1, stabilisation="supg")
    built = problem({**given, **mesh})
    exact = f"x - (exp((x-1)/{k!r}) - exp(-1/{k!r}))/(1 - exp(-1/{k!r}))"
    expected = Expression(exact).numpy(built.space.nodes)
    assert np.abs(solved(built) - expected).max() < 1e-11


@elements
@pytest.mark.parametrize("conductivity", [1e-2, 1e-4])
def test_layers_do_not_oscillate(conductivity: float, element: str) -> None:
    """u is x up to a layer at the outflow; the deviation from x is measured near the insulated walls and on average."""
    highest, average = {}, {}
    for stabilisation in ("none", "auto"):
        ends = {"left": {"dirichlet": 0}, "right": {"dirichlet": 0}}
        given = pde(conductivity=conductivity, source=1, stabilisation=stabilisation, boundary=ends)
        built = problem({**given, "mesh.cells": [16, 16], "element": element})
        x, y = built.space.nodes
        excess = (solved(built) - x)[(x < 1 - 1e-9) & (np.abs(y - 0.5) < 0.5 - 1e-9)]
        highest[stabilisation], average[stabilisation] = float(excess.max()), float(np.abs(excess).mean())
    # Galerkin's method oscillates by 0.09 to 14. Stabilisation leaves a few per cent next to the layer.
    assert highest["none"] > 0.08 and highest["auto"] < 0.04
    assert highest["auto"] < 0.12 * highest["none"] and average["auto"] < 0.01


@elements
@pytest.mark.parametrize("conductivity", [1e-2, 1e-4])
def test_a_front_that_moves_diagonally_stays_nearly_between_its_values(conductivity: float, element: str) -> None:
    """The values 0 and 1 enter on the left and move to a layer at the top."""
    excess = {}
    for stabilisation in ("none", "auto"):
        inflow = {"left": {"dirichlet": "where(y < 0.2, 0, 1)"}, "all": {"dirichlet": 0}}
        given = pde(
            conductivity=conductivity,
            velocity=["cos(pi/3)", "sin(pi/3)"],
            stabilisation=stabilisation,
            boundary=inflow,
        )
        values = solved(problem({**given, "mesh.cells": [16, 16], "element": element}))
        excess[stabilisation] = max(float(values.max()) - 1.0, -float(values.min()))
    # A linear method of second order cannot be monotone: it overshoots by 0.2 across the front at a conductivity of
    # 1e-4.
    assert excess["auto"] < (0.02 if conductivity == 1e-2 else 0.2)
    assert excess["auto"] < 0.2 * excess["none"]


def test_there_is_no_stabilisation_where_diffusion_dominates() -> None:
    """auto is Galerkin's method where the Peclet number of the cells is below 1, and continuous where it passes 1."""
    calm = {name: problem(pde(stabilisation=name, conductivity=1, source="x")) for name in ("none", "auto", "supg")}
    u, v = random(1, calm["none"].inner_shape[1]), random(calm["none"].outer_size, seed=1)
    plain = calm["none"].residual(u, v)
    assert torch.equal(calm["auto"].residual(u, v), plain)
    assert (calm["supg"].residual(u, v) - plain).norm() > 1e-4 * plain.norm()
    peclet = torch.tensor([1e-3, 1e-2, 0.5, 1.0, 1.0 + 1e-9, 50.0], dtype=torch.float64)
    least = critical(peclet)
    assert (least[:4] == 0.0).all() and 0.0 < float(least[4]) < 1e-8
    assert torch.allclose(optimal(peclet)[:2], peclet[:2] / 3, rtol=1e-4)
    assert float((optimal(peclet) - least)[-1]) < 1e-12


def test_the_control_is_stabilised_like_the_source() -> None:
    """A control 1 + x - y has the same residual as the source 1 + x - y, including the stabilisation."""
    given = pde(conductivity=1e-3, velocity=["y", "1-x"])
    driven, controlled = problem({**given, "pde.source": "1+x-y"}), problem(given)
    u = random(1, driven.inner_shape[1])
    v = torch.from_numpy(Expression("1+x-y").numpy(controlled.control.parts[0].nodes))
    zero = torch.zeros_like(v)
    assert torch.allclose(driven.residual(u, zero), controlled.residual(u, v), atol=1e-14)
    plain = problem({**given, "pde.stabilisation": "none"})
    difference = controlled.control_product(u, zero, v) - plain.control_product(u, zero, v)
    assert difference.norm() > 0.02 * plain.control_product(u, zero, v).norm()


@pytest.mark.parametrize("kind", ["line", "triangle", "quad", "tetra", "hexahedron"])
@elements
def test_second_derivatives_are_those_of_quadratic_fields(kind: str, element: str) -> None:
    mesh = {
        "line": mesh_of(1, 4),
        "triangle": mesh_of(2, 3),
        "quad": meshes.rectangle((1, 2), (0, 0), (3, 2), "quadrilateral"),
        "tetra": mesh_of(3, 2),
        "hexahedron": meshes.box((1, 2, 1), (0, 0, 0), (2, 1, 1), "hexahedron"),
    }[kind]
    functions = space(meshes.domain(mesh), element, CPU)
    dim = functions.domain.dim
    matrix = np.arange(1.0, 1 + dim * dim).reshape(dim, dim)
    matrix = matrix + matrix.T
    if element == "P1":
        # A bilinear field has only mixed derivatives, a linear field has none.
        matrix = matrix - np.diag(np.diag(matrix)) if kind in ("quad", "hexahedron") else 0.0 * matrix
    x = functions.nodes
    field = 0.5 * np.einsum("in,ij,jn->n", x, matrix, x) + x.sum(axis=0)
    for i, j in np.ndindex(dim, dim):
        unit = np.zeros((dim, dim, 1, 1))
        unit[i, j] = 1.0
        table = second_derivatives(functions.basis, unit)
        found = np.einsum("eqa,ae->eq", table, field[functions.basis.element_dofs])
        assert np.abs(found - matrix[i, j]).max() < 1e-9


# Controls


def test_control_and_objective_converge_at_order_two() -> None:
    def exact(x: np.ndarray) -> np.ndarray:
        return -A / ALPHA * np.sin(2 * np.pi * x[0]) * np.sin(2 * np.pi * x[1])

    sizes = (8, 16, 32, 64)
    found = [nhgd.solve(nhgd.load(FILE, {"mesh.cells": [n, n], "pde.stabilisation": "supg"})) for n in sizes]
    assert all(solution.status == "converged" for solution in found)
    # The adjoint of the stabilised equation is stabilised to first order only, in cells where advection dominates:
    # S. S. Collis, M. Heinkenschloss, Rice University CAAM TR02-01 (2002). The cells of the finest mesh have Pe 0.9.
    errors = [control_error(solution, exact) for solution in found]
    assert orders(errors)[-1] > 1.8 and errors[-1] < 0.02
    gaps = [abs(solution.objective - OBJECTIVE) / OBJECTIVE for solution in found]
    assert min(orders(gaps)) > 1.95
    # Mesh independence.
    iterations = [solution.stats["outer_iterations"] for solution in found]
    assert max(iterations) <= 1.25 * min(iterations)


@elements
@pytest.mark.parametrize("conductivity", [1e-2, 1e-4])
def test_nhgd_and_the_adjoint_find_the_same_optimum(conductivity: float, element: str) -> None:
    changes = {"pde.conductivity": conductivity, "mesh.cells": [16, 16], "element": element}
    ours, exact = (nhgd.solve(nhgd.load(FILE, {**changes, "method": name})) for name in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-9)
    assert ours.stats["outer_iterations"] <= 1.2 * exact.stats["outer_iterations"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"element": "P2", "pde.stabilisation": "supg"},
        {"control": {"kind": "log_conductivity", "initial": -5}, "pde.conductivity": 1.0, "element": "P2"},
        {"control": {"kind": "parameter", "name": "a", "initial": 0.3}, "pde.velocity": ["1", "a"]},
        {"control": {"kind": "neumann", "on": "right"}, "pde.boundary": {"left": {"dirichlet": "y"}}},
    ],
    ids=["source", "second derivatives", "conductivity", "velocity", "flux"],
)
def test_every_derivative_is_right(changes: dict[str, Any]) -> None:
    found = nhgd.verify(nhgd.load(FILE, {"mesh.cells": [8, 8], **changes}))
    assert found.passed, str(found)


# Mistakes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (pde(velocity=[1]), "pde.velocity: expected 2 expressions, one a coordinate, found a list of 1"),
        (pde(velocity=1), "pde.velocity: expected 2 expressions, one a coordinate, found a scalar"),
        (pde(velocity=[1, "w"]), "pde.velocity.1: unknown name 'w'"),
        (pde(velocity=[1, "z"]), "pde.velocity.1: 'z' has no value in 2-D"),
        (pde(velocity=[1, "1/x"], conductivity=0), "pde.conductivity: expected a positive conductivity, found 0"),
        (pde(stabilisation="super"), "pde.stabilisation: expected one of auto, none, supg, found 'super'"),
        (pde(boundary={}), "pde.boundary: no Dirichlet or Robin condition and no reaction"),
        ({"pde": {"kind": "advection_diffusion"}}, "pde.velocity: missing; expected a list of expressions"),
        ({**pde(), "inner.model": "energy"}, "inner.model: expected auto or residual, found 'energy'"),
    ],
)
def test_mistakes_name_the_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        problem(overrides)
    assert message in str(caught.value)


def test_the_conductivity_may_differ_between_subdomains(tmp_path: Any) -> None:
    """A quadratic solution with a conductivity that is smooth in each of two halves, continuous across."""
    mesh = meshes.rectangle((1, 1), (0, 0), (4, 4))
    path = write_mesh(tmp_path / "halves.msh", mesh, core=lambda x: x[0] > 0.5)
    given = pde(
        conductivity={"core": "0.001*(0.5+x)", "default": "0.001*(1.5-x)"},
        velocity=[1, 1],
        source="where(x > 0.5, -0.001*(2*x + 2*(0.5+x)), 0.001*(2*x - 2*(1.5-x))) + 2*x",
        boundary={"all": {"dirichlet": "x**2"}},
    )
    built = problem({**given, "mesh": {"file": str(path)}, "element": "P2"})
    assert np.abs(solved(built) - built.space.nodes[0] ** 2).max() < 1e-10
