"""The wave equation in time: orders, energy, absorbing boundaries, a known optimum, mistakes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem
from evolutions import l2_error, solved
from skfem.helpers import dot, grad

import nhgd_pde as nhgd
from benchmarks.reference import orders
from nhgd_pde.building.blueprint import build
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem

FILE = Path(__file__).parents[1] / "problems" / "wave_source.yaml"
A, ALPHA = 0.1, 0.01
OBJECTIVE = A**2 / 8 * (4 + 8 * math.pi**2 / 3 + 4 * math.pi**4 / 5 + 1 / (5 * ALPHA))
IN_SPACE = "sin(x+y)"
STATE, RATE = f"{IN_SPACE}*cos(2*t)", f"-2*sin(2*t)*{IN_SPACE}"
REST: dict[str, Any] = {"control": {"kind": "source"}, "objective": [{"kind": "regularisation", "weight": 1}]}
MANUFACTURED: dict[str, Any] = {
    "name": "manufactured",
    "mesh": {"kind": "rectangle", "cells": [8, 8]},
    "pde": {
        "kind": "wave",
        "conductivity": "1+x",
        "damping": 0.5,
        "source": f"-4*{STATE} + 0.5*{RATE} - cos(x+y)*cos(2*t) + 2*(1+x)*{STATE}",
        "boundary": {
            "left": {"dirichlet": "sin(y)*cos(2*t)"},
            "bottom": {"dirichlet": "sin(x)*cos(2*t)"},
            "right": {"neumann": "2*cos(1+y)*cos(2*t)"},
            "top": {"robin": {"coefficient": 1, "value": "(sin(x+1) + (1+x)*cos(x+1))*cos(2*t)"}},
        },
    },
    "time": {"end": 1, "steps": 8, "scheme": "crank_nicolson", "initial": [IN_SPACE, 0]},
    **REST,
}
STRING: dict[str, Any] = {
    "name": "string",
    "mesh": {"kind": "interval", "cells": 20},
    "pde": {"kind": "wave", "conductivity": "1+x", "boundary": {"all": {"dirichlet": 0}}},
    "time": {"end": 2, "steps": 40, "scheme": "crank_nicolson", "initial": ["sin(pi*x)", "x*(1-x)"]},
    **REST,
}


def error(**overrides: Any) -> float:
    built = build(read_problem(MANUFACTURED, {key.replace("__", "."): value for key, value in overrides.items()}))
    return l2_error(built, solved(built)[-1], [STATE, RATE], 1.0)


def test_displacements_and_rates_have_order_two() -> None:
    errors = [error(mesh__cells=[n, n], time__steps=n) for n in (8, 16, 32)]
    assert min(orders(errors)) > 1.85


@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1.0), ("crank_nicolson", 2.0)])
def test_schemes_have_their_order_in_time(scheme: str, order: float) -> None:
    steps = (40, 80, 160) if scheme == "implicit_euler" else (8, 16, 32)
    errors = [error(element="P2", mesh__cells=[8, 8], time__steps=n, time__scheme=scheme) for n in steps]
    assert orders(errors)[-1] > order - 0.1


def energies(overrides: dict[str, Any]) -> np.ndarray:
    """The energy int w^2 + conductivity |grad u|^2 at every time, with matrices of scikit-fem."""
    built = build(read_problem(STRING, overrides))
    basis = skfem.Basis(built.space.domain.mesh, built.space.basis.elem, intorder=4)
    stiffness = skfem.BilinearForm(lambda u, v, w: (1 + w.x[0]) * dot(grad(u), grad(v))).assemble(basis)
    mass = skfem.BilinearForm(lambda u, v, w: u * v).assemble(basis)
    levels, n = solved(built).numpy(), built.space.parts[0].size
    return np.array([row[:n] @ stiffness @ row[:n] + row[n:] @ mass @ row[n:] for row in levels])


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_the_midpoint_rule_preserves_the_energy(element: str) -> None:
    found = energies({"element": element})
    assert found[0] > 1.0
    np.testing.assert_allclose(found, found[0], rtol=1e-12)


def test_damping_and_the_implicit_euler_method_take_energy() -> None:
    for overrides in ({"pde.damping": 1}, {"time.scheme": "implicit_euler"}):
        found = energies(overrides)
        assert (np.diff(found) < 0.0).all() and found[-1] < 0.5 * found[0]


def test_an_absorbing_boundary_lets_a_wave_out() -> None:
    """A pulse that runs to the right leaves; of a fixed end it would be reflected."""
    pulse = ["exp(-200*(x-0.5)**2)", "400*2*(x-0.5)*exp(-200*(x-0.5)**2)"]
    left = {}
    for condition in ("absorbing", "dirichlet"):
        end = {"absorbing": True} if condition == "absorbing" else {"dirichlet": 0}
        found = energies(
            {
                "pde.conductivity": 4,
                "pde.boundary": {"left": {"dirichlet": 0}, "right": end},
                "mesh.cells": 200,
                "time.end": 0.5,
                "time.steps": 200,
                "time.initial": pulse,
            }
        )
        left[condition] = found[-1] / found[0]
    assert left["dirichlet"] > 0.9 and left["absorbing"] < 1e-3


def test_the_control_has_the_known_optimum() -> None:
    values = []
    for n in (8, 16, 32):
        found = nhgd.solve(nhgd.load(FILE, {"mesh.cells": [n, n], "time.steps": n, "outer.rtol": 1e-6}))
        assert found.status == "converged"
        values.append(found.objective)
    assert orders([abs(value - OBJECTIVE) for value in values])[-1] > 1.9
    assert values[-1] == pytest.approx(OBJECTIVE, rel=0.01)


@pytest.mark.parametrize(
    "overrides",
    [
        {"control": {"kind": "log_conductivity"}, "pde.boundary": {"right": {"absorbing": True}}},
        {"control": {"kind": "initial"}, "pde.damping": "x"},
        {"control": {"kind": "dirichlet", "on": "left"}},
        {"control": {"kind": "parameter", "name": "d", "initial": 0.3}, "pde.damping": "d"},
    ],
    ids=["conductivity", "initial", "dirichlet", "damping"],
)
def test_derivatives_are_right(overrides: dict[str, Any]) -> None:
    small = {"mesh.cells": [3, 3], "time.steps": 3}
    assert nhgd.verify(nhgd.load(FILE, {**small, **overrides})).passed


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"time": None, "objective.0.target": "x", "pde.source": 0},
            "time: missing; an equation of kind wave evolves in time",
        ),
        ({"time.initial": ["x", 0, 0]}, "time.initial: expected 2 expressions, one a component, found 3"),
        ({"pde.damping": -1}, "pde.damping"),
        ({"pde.conductivity": 0}, "pde.conductivity"),
        (
            {"pde.conductivity": [[1, 0], [0, 2]], "pde.boundary.right": {"absorbing": True}},
            "pde.conductivity: expected a scalar conductivity for an absorbing boundary",
        ),
    ],
)
def test_mistakes_are_told(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(words)):
        nhgd.load(FILE, overrides)


def test_fields_are_named(tmp_path: Path) -> None:
    found = nhgd.solve(nhgd.load(FILE, {"mesh.cells": [4, 4], "time.steps": 4}), output=tmp_path / "run")
    assert found.status == "converged"
    text = (tmp_path / "run" / "final.vtu").read_bytes()
    assert b"displacement" in text and b"rate" in text
