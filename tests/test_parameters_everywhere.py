"""A parameter in every place where an expression is allowed: with the value c it acts like the number c."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from parameters import evaluated, parameter, written

from nhgd_pde.building.blueprint import build_on
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.mesh import Domain
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.verification import verify_problem
from problems import CPU, relative, split

LEFT = {"left": {"dirichlet": 0}}
VECTOR = {"left": {"dirichlet": [0, 0]}}
FLOW = {
    "left": {"dirichlet": ["y*(1 - y)", 0]},
    "bottom": {"dirichlet": [0, 0]},
    "top": {"dirichlet": [0, 0]},
}
EULER = {"end": 0.2, "steps": 3, "initial": "x*y"}
MIDPOINT = {**EULER, "scheme": "crank_nicolson"}


def own_form(u: torch.Tensor, grad: torch.Tensor, c: Any, x: torch.Tensor) -> Any:
    return c["stiffness"] * u**3 - c["source"], (1.0 + c["k"]) * grad


def own_pair(u: torch.Tensor, grad: torch.Tensor, c: Any, x: torch.Tensor) -> Any:
    return u - c["source"] * c["weights"].sum(0), c["weights"][:, None] * grad


def thermal(time: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"time": time, "pde": {"kind": "heat", "source": "1 + t*x", "boundary": LEFT, **changes}}


# The problems, one for each place. `k` is the parameter, which is 0.7 at first; in a mapping by subdomain it is in one
# of two subdomains.
BASES: dict[str, dict[str, Any]] = {
    "poisson": {"pde": {"kind": "poisson", "source": "1 + x", "boundary": LEFT}},
    "semilinear": {"pde": {"kind": "semilinear", "nonlinearity": "u**3", "source": 5, "boundary": LEFT}},
    "advection_diffusion": {
        "pde": {"kind": "advection_diffusion", "velocity": [3, 1], "source": 1, "boundary": LEFT},
    },
    "upwinded": {
        "pde": {
            "kind": "advection_diffusion",
            "velocity": [3, "x"],
            "conductivity": 0.01,
            "source": 1,
            "stabilisation": "supg",
            "boundary": LEFT,
        },
        "element": "P2",
    },
    "helmholtz": {
        "pde": {
            "kind": "helmholtz",
            "wavenumber": 4,
            "source": "x",
            "boundary": {"left": {"dirichlet": [0, 0]}, "right": {"absorbing": True}},
        }
    },
    "elasticity": {"pde": {"kind": "elasticity", "source": [0, -1], "boundary": VECTOR}},
    "plane_stress": {"pde": {"kind": "elasticity", "plane": "stress", "source": [0, -1], "boundary": VECTOR}},
    "stokes": {"pde": {"kind": "stokes", "source": ["y", 0], "boundary": FLOW}, "element": "P2"},
    "navier_stokes": {"pde": {"kind": "navier_stokes", "source": ["y", 0], "boundary": FLOW}, "element": "P2"},
    "heat": thermal(EULER),
    "heat_midpoint": thermal(MIDPOINT),
    "burgers": {"time": EULER, "pde": {"kind": "burgers", "boundary": VECTOR}},
    "burgers_steady": {"pde": {"kind": "burgers", "source": [1, "x"], "boundary": {"all": {"dirichlet": [0, 0]}}}},
    "allen_cahn": {"time": MIDPOINT, "pde": {"kind": "allen_cahn", "epsilon": 0.5}},
    "python": {
        "pde": {
            "python": own_form,
            "coefficients": {"stiffness": 1, "k": 1},
            "source": "10*x",
            "boundary": LEFT,
        }
    },
    "python_pair": {
        "time": MIDPOINT,
        "pde": {"python": own_pair, "components": 2, "coefficients": {"weights": [1, 2]}, "boundary": VECTOR},
    },
}
BASES["upwinded_linear"] = {**BASES["upwinded"], "element": "P1"}
BASES["burgers"]["time"] = {**EULER, "initial": ["x*y", "x"]}
BASES["python_pair"]["time"] = {**MIDPOINT, "initial": ["x*y", "x"]}

SCALAR = [
    ("pde.source", "1 + k*x"),
    ("pde.source", {"core": "k*x", "default": 1}),
    ("pde.boundary.left.dirichlet", "k*y"),
    ("pde.boundary.right", {"neumann": "k**2*y"}),
    ("pde.boundary.right", {"robin": {"coefficient": "1 + k", "value": 1}}),
    ("pde.boundary.right", {"robin": {"coefficient": 2, "value": "exp(k)*y"}}),
    ("pde.points", [{"at": [0.6, 0.4], "load": "k"}]),
    ("pde.points", [{"at": [1, 1], "dirichlet": "k**2"}]),
]
CONDUCTIVE = [
    ("pde.conductivity", "1 + k*x"),
    ("pde.conductivity", {"core": "2 + k", "default": "1 + x"}),
    ("pde.conductivity", [["1 + k", "0.2*k"], ["0.2*k", 2]]),
]
EVOLVING = [
    ("time.initial", "k*sin(pi*x)"),
    ("pde.boundary.left.dirichlet", "k*(1 + k*t)*y"),
    ("pde.source", {"core": "k*t", "default": "x"}),
    ("pde.boundary.right", {"neumann": "k*t"}),
]
VECTORS = [
    ("pde.source", ["k", "x*k**2"]),
    ("pde.boundary.right", {"neumann": [0, "k*y"]}),
    ("pde.boundary.right", {"robin": {"coefficient": "k", "value": ["k", 0]}}),
    ("pde.boundary.left.dirichlet", ["k*y*(1 - y)", 0]),
    ("pde.points", [{"at": [0.6, 0.4], "load": [0, "k"]}]),
]
PLACES: dict[str, list[tuple[str, Any]]] = {
    "poisson": [*SCALAR, *CONDUCTIVE, ("pde.reaction", "k"), ("pde.reaction", {"core": "k", "default": 0})],
    "semilinear": [*CONDUCTIVE, ("pde.nonlinearity", "k*u**3"), ("pde.nonlinearity", "u**3 + sinh(k*u)"), *SCALAR],
    "advection_diffusion": [*CONDUCTIVE, ("pde.velocity", ["3*k", 1]), ("pde.velocity", ["k", "k*x"]), *SCALAR[2:6]],
    "upwinded": [
        ("pde.conductivity", "0.01 + 0.1*k*x**2"),
        ("pde.conductivity", {"core": "0.01*k*x", "default": 0.01}),
        ("pde.velocity", ["1 + k", "k*x"]),
        ("pde.reaction", "k"),
    ],
    "helmholtz": [
        ("pde.wavenumber", "5*k"),
        ("pde.wavenumber", {"core": "5*k", "default": 4}),
        ("pde.conductivity", "1 + k*x"),
        ("pde.conductivity", {"core": "1 + k", "default": 1}),
        ("pde.source", "k*x"),
        ("pde.source", ["x", "k*x"]),
        ("pde.source", {"core": "k", "default": 0}),
        ("pde.boundary.left.dirichlet", "k*y"),
        ("pde.boundary.left.dirichlet", [0, "k*y"]),
        ("pde.boundary.top", {"neumann": [0, "k"]}),
        ("pde.boundary.top", {"robin": {"coefficient": "k", "value": "k**2"}}),
    ],
    "elasticity": [
        ("pde.young", "1 + k*x"),
        ("pde.young", {"core": "k", "default": 2}),
        ("pde.poisson_ratio", "0.5*k"),
        ("pde.poisson_ratio", {"core": "0.5*k", "default": 0.2}),
        *VECTORS,
    ],
    "plane_stress": [("pde.poisson_ratio", "0.6*k"), ("pde.young", "k")],
    "stokes": [("pde.viscosity", "k"), ("pde.viscosity", {"core": "k", "default": 1}), *VECTORS],
    "navier_stokes": [("pde.viscosity", "k"), *VECTORS],
    "upwinded_linear": [("pde.conductivity", [["0.01 + 0.1*k*x", 0], ["0.01*k*y", "0.02*k"]])],
    "heat": [*SCALAR, *CONDUCTIVE, *EVOLVING, ("pde.reaction", "k*t"), ("pde.capacity", "1 + k*x")],
    "heat_midpoint": [
        *EVOLVING,
        ("pde.capacity", "1 + k*x"),
        ("pde.capacity", "1 + k*t"),
        ("pde.capacity", {"core": "k", "default": "1 + t"}),
        ("pde.conductivity", {"core": "1 + k*t", "default": 1}),
        ("pde.boundary.right", {"robin": {"coefficient": "k*t", "value": "k"}}),
    ],
    "burgers": [
        ("pde.viscosity", "0.2*k"),
        ("time.initial", ["k*x", "y*k**2"]),
        ("time.initial", ["k*x", "y"]),
        ("pde.source", ["k*t", "x"]),
        ("pde.boundary.left.dirichlet", ["k*y", 0]),
    ],
    "burgers_steady": [("pde.viscosity", "0.5*k"), ("pde.viscosity", {"core": "k", "default": 0.5})],
    "allen_cahn": [
        ("pde.epsilon", "0.5*k"),
        ("pde.epsilon", {"core": "0.5*k", "default": 0.4}),
        ("pde.source", "k*t"),
        ("time.initial", "k*cos(pi*x)"),
    ],
    "python": [
        ("pde.coefficients.stiffness", "k"),
        ("pde.coefficients.stiffness", {"core": "k", "default": 1}),
        ("pde.source", "k*x"),
    ],
    "python_pair": [
        ("pde.coefficients.weights", ["k", "1 + k*x"]),
        ("pde.capacity", "1 + k*x"),
        ("pde.source", ["k", 0]),
        ("time.initial", ["k", "k*x"]),
    ],
}


CASES = [
    pytest.param(base, key, value, id=f"{base}-{key}-{value}")
    for base, places in PLACES.items()
    for key, value in places
]


@pytest.fixture(scope="module")
def square() -> Domain:
    return split(meshes.rectangle((1.0, 1.0), (0.0, 0.0), (5, 5)), core=lambda x: x[0] + x[1] < 0.9)


def problem_of(
    domain: Domain, base: str, key: str, value: Any, controls: list[dict[str, Any]], **more: Any
) -> PDEProblem:
    vector = base in (
        "elasticity",
        "plane_stress",
        "stokes",
        "navier_stokes",
        "burgers",
        "burgers_steady",
        "python_pair",
    )
    target = [0.3, "x*y"] if vector else ["x*y", 0.1] if base == "helmholtz" else "x*y"
    spec = {
        "name": "place",
        "mesh": {"kind": "rectangle", "cells": [5, 5]},
        "control": controls,
        "objective": [{"kind": "tracking", "target": target}, {"kind": "regularisation", "weight": 0.1}],
        **copy.deepcopy(BASES[base]),
        **more,
    }
    return build_on(read_problem(spec, {key: value} if key else None), domain, CPU)


@pytest.mark.parametrize(("base", "key", "value"), CASES)
def test_a_parameter_acts_like_its_number(square: Domain, base: str, key: str, value: Any) -> None:
    """The parameter has its starting value, then another value."""
    control = {"kind": "source"}
    built = problem_of(square, base, key, value, [control, parameter(0.7)])
    v = built.control.initial.clone()
    for number in (0.7, 0.55):
        v[-1] = number
        state, _ = evaluated(built, v)
        plain = problem_of(square, base, key, written(value, number), [control])
        expected, _ = evaluated(plain, plain.control.initial)
        assert relative(state, expected) <= 1e-9


@pytest.mark.parametrize(("base", "key", "value"), CASES)
def test_derivatives_by_a_parameter(square: Domain, base: str, key: str, value: Any) -> None:
    """Derivatives of first and second order, and the hypergradient, which equals the exact adjoint."""
    found = verify_problem(problem_of(square, base, key, value, [{**parameter(0.7), "bounds": [0.3, 1.1]}]))
    assert found.passed, str(found)


def test_two_parameters_in_one_expression_and_in_several(square: Domain) -> None:
    pde = {
        "kind": "heat",
        "conductivity": "a + b*x",
        "capacity": "1 + a*b",
        "boundary": {"left": {"dirichlet": "a*y + b"}, "right": {"robin": {"coefficient": "b", "value": "a"}}},
    }
    controls = [parameter(1.5, "a"), {"kind": "source"}, parameter(0.4, "b")]
    more = {"pde": pde, "time": {**MIDPOINT, "initial": "a*x + b*y"}}
    built = problem_of(square, "heat", "", None, controls, **more)
    found = verify_problem(built)
    assert found.passed, str(found)
    v = built.control.initial.clone()
    v[0], v[-1] = 1.2, 0.9
    plain = written(written(more, 1.2, "a"), 0.9, "b")
    expected = problem_of(square, "heat", "", None, [{"kind": "source"}], **plain)
    assert relative(evaluated(built, v)[0], evaluated(expected, expected.control.initial)[0]) <= 1e-10
