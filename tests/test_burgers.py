"""The equation of Burgers: manufactured solutions, steady and in time; a control with a known optimum."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from evolutions import LINE, evolution, l2_error, solved

import nhgd_pde as nhgd
from benchmarks.reference import extrapolated, orders
from nhgd_pde.inner.residual import ResidualModel
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.problem_file.errors import ProblemError
from problems import random

FILE = "problems/burgers_control.yaml"
C = 4 * math.pi**2 * 0.05
OBJECTIVE = 0.0025 * (1 + C + C**2 / 3 + math.pi**2 * (1 - math.exp(-2)) / 2) + 0.01 / 1.2
NU = 0.1

# The solution T times a function of space, its source without the time derivative, and the conditions on the right.
MANUFACTURED: dict[int, tuple[list[str], list[str], list[str]]] = {
    1: (["T*sin(2*x)"], ["4*0.1*T*sin(2*x) + T**2*2*sin(2*x)*cos(2*x)"], ["0.1*T*2*cos(2*x)"]),
    2: (
        ["T*sin(x)*cos(y)", "T*cos(x + y)"],
        [
            "0.2*T*sin(x)*cos(y) + T**2*(sin(x)*cos(y)*cos(x)*cos(y) - cos(x + y)*sin(x)*sin(y))",
            "0.2*T*cos(x + y) - T**2*sin(x + y)*(sin(x)*cos(y) + cos(x + y))",
        ],
        ["0.1*T*cos(x)*cos(y)", "-0.1*T*sin(x + y)"],
    ),
}


def manufactured(dim: int, n: int, element: str, scheme: str | None) -> float:
    """The error at the end. In time T = 1 + t, for which the schemes have no error; in steady problems T = 1."""
    factor = "1" if scheme is None else "(1 + t)"
    exact, source, flux = ([text.replace("T", factor) for text in each] for each in MANUFACTURED[dim])
    start = [text.replace("T", "1") for text in MANUFACTURED[dim][0]]
    if scheme is not None:
        source = [f"{own} + {first}" for own, first in zip(source, start, strict=True)]
    plain = (lambda each: each[0]) if dim == 1 else (lambda each: each)
    pde = {
        "kind": "burgers",
        "viscosity": NU,
        "source": plain(source),
        "boundary": {"all": {"dirichlet": plain(exact)}, "right": {"neumann": plain(flux)}},
    }
    time = None if scheme is None else {"end": 0.5, "steps": 2, "scheme": scheme, "initial": plain(start)}
    mesh = {"kind": ("interval", "rectangle")[dim - 1], "cells": [n] * dim}
    built = evolution(
        {"mesh": mesh, "element": element, "pde": pde, "time": time, "objective.0.target": plain(["x"] * dim)}
    )
    return l2_error(built, solved(built)[-1], exact, 0.5)


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize(
    ("dim", "scheme"), [(1, None), (1, "implicit_euler"), (1, "crank_nicolson"), (2, None), (2, "crank_nicolson")]
)
def test_manufactured_solutions_converge_at_the_order_of_the_element(
    dim: int, scheme: str | None, element: str
) -> None:
    sizes = (8, 16, 32, 64) if dim == 1 else (2, 4, 8, 16)
    errors = [manufactured(dim, n, element, scheme) for n in sizes]
    assert orders(errors)[-1] == pytest.approx(int(element[1]) + 1, abs=0.1)


@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1), ("crank_nicolson", 2)])
def test_a_vector_converges_in_time_at_the_order_of_the_scheme(scheme: str, order: int) -> None:
    """P1 elements have no error for a linear field."""
    exact = ["exp(-t)*(1 + x + y)", "exp(-t)*(x - y)"]
    source = ["exp(-2*t)*(1 + 2*x) - exp(-t)*(1 + x + y)", "exp(-2*t)*(1 + 2*y) - exp(-t)*(x - y)"]
    pde = {"kind": "burgers", "viscosity": NU, "source": source, "boundary": {"all": {"dirichlet": exact}}}
    pde["boundary"]["right"] = {"neumann": ["0.1*exp(-t)", "0.1*exp(-t)"]}
    errors = []
    for steps in (4, 8, 16, 32):
        time = {"end": 1, "steps": steps, "scheme": scheme, "initial": ["1 + x + y", "x - y"]}
        mesh = {"kind": "rectangle", "cells": [2, 2]}
        built = evolution({"mesh": mesh, "pde": pde, "time": time, "objective.0.target": ["x", "y"]})
        errors.append(l2_error(built, solved(built)[-1], exact, 1.0))
    assert orders(errors)[-1] == pytest.approx(order, abs=0.1)


def test_the_steady_equation_is_solved_from_a_zero_start() -> None:
    """-nu u'' + u u' = 0, u(-1) = 1, u(1) = -1: a layer at 0, u = -a tanh(a x/(2 nu)), a tanh(a/(2 nu)) = 1."""
    pde = {"kind": "burgers", "viscosity": NU, "boundary": {"left": {"dirichlet": 1}, "right": {"dirichlet": -1}}}
    mesh = {"kind": "interval", "size": 2, "origin": -1, "cells": 80}
    built = evolution({"mesh": mesh, "element": "P2", "pde": pde, "time": None, "objective.0.target": "x"})
    a = 1.0
    for _ in range(50):
        a = 1.0 / math.tanh(a / (2 * NU))
    assert isinstance(built.model, ResidualModel) and not built.equation.linear
    x = built.space.nodes[0]
    assert np.abs(solved(built)[0].numpy() + a * np.tanh(a * x / (2 * NU))).max() < 1e-5


def test_steady_derivatives_are_right() -> None:
    pde = {"kind": "burgers", "viscosity": "1 + x", "boundary": {"left": {"dirichlet": ["y", 1]}}}
    mesh = {"kind": "rectangle", "cells": [2, 2]}
    steady = {"mesh": mesh, "pde": pde, "time": None, "objective.0.target": ["x", "y"]}
    assert nhgd.verify(nhgd.load(copy.deepcopy(LINE), steady)).passed


def test_convection_uses_the_gradient_and_not_its_transpose() -> None:
    """u . grad u = sum_j u_j d_j u_i, tested against a linear field where the transpose differs."""
    pde = {"kind": "burgers", "viscosity": 1, "boundary": {}}
    mesh = {"kind": "rectangle", "cells": [2, 2]}
    built = evolution(
        {
            "mesh": mesh,
            "pde": {**pde, "boundary": {"left": {"dirichlet": [0, 0]}}},
            "time": None,
            "objective.0.target": ["x", "y"],
        }
    )
    x, y = built.space.parts[0].nodes
    # u = (x + 2 y, 3 x): u . grad u = (x + 8 y, 3 x + 6 y); the transpose gives (10 x + 2 y, 2 x + 4 y).
    full = torch.from_numpy(np.concatenate([x + 2 * y, 3 * x]))[None]
    v = torch.zeros(built.outer_size, dtype=torch.float64)
    residual = built.equation._integrate(full, v)[0]
    one = torch.cat([torch.ones(len(x)), torch.zeros(len(x))]).double()
    assert float(residual @ one) == pytest.approx(0.5 + 4.0, rel=1e-13)
    assert float(residual @ (1.0 - one)) == pytest.approx(1.5 + 3.0, rel=1e-13)


# The shipped problem


def test_control_and_objective_converge_to_the_known_optimum_at_order_two() -> None:
    values, errors = [], []
    for n in (12, 24, 48):
        overrides = {"mesh.cells": [n], "time.steps": n // 2, "outer.rtol": 1e-9, "method": "adjoint"}
        solution = nhgd.solve(nhgd.load(FILE, overrides))
        assert solution.status == "converged"
        values.append(solution.objective)
        stages = (np.arange(n // 2) + 0.5) / (n // 2)
        exact = -(1 - stages)[:, None] * np.sin(2 * np.pi * solution.problem.control.parts[0].nodes[0])
        errors.append(float(np.abs(solution.control.reshape(n // 2, -1) - exact).max()))
    assert orders([abs(value - OBJECTIVE) for value in values])[-1] == pytest.approx(2.0, abs=0.1)
    assert extrapolated(values, (2, 4)) == pytest.approx(OBJECTIVE, rel=2e-5)
    assert orders(errors)[-1] > 1.8


def test_nhgd_and_the_adjoint_find_the_same_optimum() -> None:
    small = {"mesh.cells": [32], "time.steps": 20}
    ours, exact = (nhgd.solve(nhgd.load(FILE, {**small, "method": method})) for method in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-9)
    assert ours.stats["outer_iterations"] <= 1.2 * exact.stats["outer_iterations"]


def test_every_derivative_of_the_shipped_problem_is_right() -> None:
    assert nhgd.verify(nhgd.load(FILE, {"mesh.cells": [12], "time.steps": 6})).passed


def test_a_vector_is_controlled_in_time() -> None:
    """Both methods find the same optimum of a flow in two dimensions."""
    pde = {"kind": "burgers", "viscosity": NU, "boundary": {"all": {"dirichlet": [0, 0]}}}
    start = ["sin(pi*x)*sin(pi*y)", "-sin(pi*x)*sin(2*pi*y)"]
    file = {
        **copy.deepcopy(LINE),
        "mesh": {"kind": "rectangle", "cells": [5, 5]},
        "pde": pde,
        "time": {"end": 0.5, "steps": 3, "initial": start},
        "objective": [{"kind": "tracking", "target": start}, {"kind": "regularisation", "weight": 1e-3}],
    }
    ours, exact = (nhgd.solve(nhgd.load({**file, "method": method})) for method in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-6)
    assert ours.objective < 0.7 * ours.stats["objective_initial"]
    _, fields = ours.fields()
    assert fields.point["state"].shape == fields.point["control"].shape == (36, 2)


# Mistakes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pde.viscosity": 0}, "pde.viscosity: expected a positive value, found 0"),
        ({"pde.viscosity": "x - 0.5"}, "pde.viscosity: expected a positive value, found"),
        ({"pde.source": [1, 2]}, "pde.source: expected one expression, found 2"),
        ({"time": None, "pde.boundary": {}}, "pde.boundary: no Dirichlet or Robin condition"),
        ({"inner.model": "energy"}, "inner.model: expected auto or residual, found 'energy'"),
        ({"pde.conductivity": 1}, "pde.conductivity: unknown key"),
    ],
)
def test_mistakes_name_the_key(overrides: dict[str, Any], message: str) -> None:
    pde = {"kind": "burgers", "boundary": {"all": {"dirichlet": 0}}}
    with pytest.raises(ProblemError) as caught:
        evolution({"pde": pde, "objective.0.target": "x", **overrides})
    assert message in str(caught.value)


def test_a_vector_needs_lists() -> None:
    pde = {"kind": "burgers", "source": "x", "boundary": {"all": {"dirichlet": 1}}}
    mesh = {"kind": "rectangle", "cells": [2, 2]}
    with pytest.raises(ProblemError) as caught:
        evolution({"mesh": mesh, "pde": pde})
    keys = {issue.key for issue in caught.value.issues}
    assert {"pde.source", "pde.boundary.all.dirichlet", "objective.0.target"} <= keys


def test_the_second_derivative_of_convection_is_symmetric() -> None:
    built = evolution({"pde": {"kind": "burgers", "boundary": {"left": {"dirichlet": 1}}}})
    equation = built.equation
    u, w, a, b = (random(1, equation.unknowns, seed=s) for s in range(4))
    v = torch.zeros(equation.controls, dtype=torch.float64)
    first, second = (equation.second_derivative(u, v, w, each, v)[0] for each in (a, b))
    assert dot(first, b) == pytest.approx(dot(second, a), rel=1e-12) and first.norm() > 0.0
