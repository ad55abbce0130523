"""Parameters together with random inputs and in Python functions, and places where they have no meaning."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from parameters import evaluated, parameter, written

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from problems import BASE, relative

HELD = {"left": {"dirichlet": 0}}
SIDE = {"left": {"dirichlet": "k*xi*y"}, "right": {"robin": {"coefficient": "1 + k + xi**2", "value": "k + xi"}}}
TIME = {"end": 0.3, "steps": 3, "scheme": "crank_nicolson", "initial": "k*xi*x"}
# Each part has the parameter k and the random input xi in one expression.
TOGETHER: dict[str, dict[str, Any]] = {
    "coefficients": {
        "pde": {
            "kind": "poisson",
            "conductivity": "1 + k + 0.1*xi",
            "reaction": "k + xi**2",
            "source": 1,
            "boundary": HELD,
        }
    },
    "sides": {"pde": {"kind": "poisson", "source": 1, "boundary": SIDE}},
    "matrix": {
        "pde": {
            "kind": "poisson",
            "conductivity": [["2 + k", "0.1*xi"], ["0.1*xi", "2 + xi**2"]],
            "source": 1,
            "boundary": HELD,
        }
    },
    "upwinding": {
        "pde": {
            "kind": "advection_diffusion",
            "velocity": ["3 + k", "xi"],
            "conductivity": "0.01 + (0.1*k + 0.1*xi**2)*x",
            "stabilisation": "supg",
            "source": 1,
            "boundary": HELD,
        }
    },
    "waves": {
        "pde": {
            "kind": "helmholtz",
            "wavenumber": "4 + xi",
            "conductivity": "1 + 0.5*k",
            "source": [1, "k*xi"],
            "boundary": {"left": {"dirichlet": ["k*xi", 0]}, "right": {"absorbing": True}},
        },
        "objective": [{"kind": "tracking", "target": [1, 0]}],
    },
    "reaction": {"pde": {"kind": "semilinear", "nonlinearity": "(k + xi**2)*u**3", "source": 5, "boundary": SIDE}},
    "time": {"time": TIME, "pde": {"kind": "heat", "capacity": "1 + k + xi**2", "source": "xi*t", "boundary": SIDE}},
}


def uncertain(changes: dict[str, Any], k: float = 0.7) -> nhgd.Problem:
    more = {
        "control": [{"kind": "source"}, parameter(k)],
        "parameters": {"xi": {"normal": [0.2, 0.3]}},
        "scenarios": {"count": 4},
    }
    return nhgd.load({**copy.deepcopy(BASE), **more, **copy.deepcopy(changes)})


@pytest.mark.parametrize("name", TOGETHER)
def test_a_parameter_and_a_random_input_in_one_expression(name: str) -> None:
    """Every scenario equals the problem with both numbers in the file, also after the parameter has changed."""
    scenarios = uncertain(TOGETHER[name]).scenarios
    assert scenarios is not None
    v = scenarios.nominal.control.initial.clone()
    for number, z in ((0.7, -1.0), (0.45, 0.5), (0.45, 1.5)):
        v[-1] = number
        one = scenarios.at(np.array([[z]]))
        plain = written(written(TOGETHER[name], number), 0.2 + 0.3 * z, "xi")
        alone = build(read_problem({**copy.deepcopy(BASE), **plain}))
        expected, _ = evaluated(alone, alone.control.initial)
        assert relative(evaluated(one, v)[0], expected) <= 1e-9


@pytest.mark.parametrize("name", [each for each in TOGETHER if each != "time"])
def test_derivatives_over_scenarios_are_sums_of_those_of_single_scenarios(name: str) -> None:
    scenarios = uncertain(TOGETHER[name]).scenarios
    assert scenarios is not None
    z = np.array([[-1.0], [0.5], [1.5]])
    together = scenarios.at(z)
    v = together.control.initial.clone()
    v[-1] = 0.45
    each = [reduced(scenarios.at(row[None]), v) for row in z]
    u = torch.cat([state for state, _ in each])
    assert relative(reduced(together, v, u)[1], torch.stack([derivative for _, derivative in each]).sum(0)) <= 1e-8


def reduced(built: PDEProblem, v: torch.Tensor, start: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The unknowns, and the derivative of the sum of the scenarios' objectives by the control."""
    u = built.cold_start(v) if start is None else start
    for _ in range(30):
        u = u - built.state_factors(u, v).solve(built.residual(u, v))
    whole, direct = built.scenario_derivatives(u, v)
    adjoint = built.state_factors(u, v).solve_transposed(whole)
    return u, direct.sum(0) - built.control_product_transposed(u, v, adjoint)


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_a_run_over_scenarios_with_parameters_in_boundary_values(method: str) -> None:
    """-u'' = 0 between k (1 + xi) and 0 with target 1 - x: the mean of (k (1 + xi) - 1)^2 is least at E a / E a^2."""
    pde = {"kind": "poisson", "boundary": {"left": {"dirichlet": "k*(1 + xi)"}, "right": {"dirichlet": 0}}}
    problem = uncertain(
        {
            "mesh": {"kind": "interval", "cells": [8]},
            "pde": pde,
            "method": method,
            "control": parameter(0.3),
            "objective": [{"kind": "tracking", "target": "1 - x"}],
            "scenarios": {"sampling": "quadrature", "points": 4, "rule": "tensor"},
        }
    )
    found = nhgd.solve(problem)
    assert found.status == "converged", found.message
    mean, square = 1.2, 1.2**2 + 0.3**2
    assert found.controls["k"][0] == pytest.approx(mean / square, rel=1e-7)


# Python functions


def by_name(u: torch.Tensor, grad: torch.Tensor, c: Any, x: torch.Tensor) -> Any:
    """Uses a coefficient of the file, and the parameter by its bare name."""
    return c["k"] * u**3 - c["source"], c["stiffness"] * grad


def flips(u: torch.Tensor, grad: torch.Tensor, c: Any, x: torch.Tensor) -> Any:
    """The form is linear, self-adjoint and coercive only for k = 0."""
    return c["k"] * (u**3 + grad[0]) - c["source"], grad


def enters(c: Any, v: torch.Tensor) -> Any:
    return {**c, "source": c["source"] + c["k"] * torch.tanh(v)}


OWN = {
    "pde": {"python": by_name, "coefficients": {"stiffness": "1 + k*x"}, "source": "10*x", "boundary": HELD},
    "control": [parameter(0.7)],
}


def test_an_equation_in_python_finds_parameters_by_name() -> None:
    built = nhgd.load({**copy.deepcopy(BASE), **OWN}).pde
    v = built.control.initial.clone()
    v[-1] = 0.4
    plain = {
        "kind": "semilinear",
        "nonlinearity": "0.4*u**3",
        "conductivity": "1 + 0.4*x",
        "source": "10*x",
        "boundary": HELD,
    }
    expected = nhgd.load({**copy.deepcopy(BASE), "pde": plain}).pde
    assert relative(evaluated(built, v)[0], evaluated(expected, expected.control.initial)[0]) <= 1e-10
    bounded = [{**parameter(0.7), "bounds": [0.3, 1]}]
    assert nhgd.verify(nhgd.load({**copy.deepcopy(BASE), **OWN, "control": bounded})).passed


def test_the_properties_of_an_equation_are_checked_at_several_parameter_values() -> None:
    own = {"python": flips, "source": "10*x", "boundary": {"all": {"dirichlet": 0}}}
    problem = nhgd.load({**copy.deepcopy(BASE), "pde": own, "control": [parameter(0.0)]})
    equation = problem.pde.equation
    assert not (equation.affine or equation.linear or equation.symmetric)
    assert problem.pde.model.name == "residual"
    found = nhgd.verify(problem)
    assert found.passed, str(found)


def test_a_control_in_python_finds_parameters_by_name() -> None:
    controls = [{"kind": "python", "python": enters, "initial": "x"}, parameter(2.0)]
    found = nhgd.load({**copy.deepcopy(BASE), "control": controls})
    v = found.pde.control.initial.clone()
    checks = nhgd.verify(found)
    assert checks.passed, str(checks)
    _, first = evaluated(found.pde, v)
    v[-1] = 1.0
    assert evaluated(found.pde, v)[1] != pytest.approx(first, rel=1e-6)


def test_matrices_that_stay_symmetric_are_distinguished_from_others() -> None:
    for entry, symmetric in (("0.1*k", True), ("0.1*k**2", False)):
        pde = {"kind": "poisson", "conductivity": [[1, "0.1*k"], [entry, 1]], "boundary": HELD}
        problem = nhgd.load({**copy.deepcopy(BASE), "pde": pde, "control": [parameter(1.0)]})
        assert problem.pde.equation.symmetric == symmetric
        found = nhgd.verify(problem)
        assert found.passed, str(found)


@pytest.mark.parametrize(
    "changes", [{"pde.reaction": "k"}, {"pde.boundary.right": {"robin": {"coefficient": "k", "value": 1}}}]
)
def test_an_equation_that_may_become_indefinite_has_no_energy_form(changes: dict[str, Any]) -> None:
    """A parameter may make a reaction or an exchange negative, but then there is no energy."""
    base = {
        **copy.deepcopy(BASE),
        "pde": {"kind": "poisson", "source": 1, "boundary": HELD},
        "control": [parameter(1.0)],
    }
    assert nhgd.load(copy.deepcopy(base), changes).pde.model.name == "residual"
    problem = nhgd.load(copy.deepcopy(base), {**changes, "inner.model": "energy"}).pde
    assert problem.model.name == "energy"
    key = "pde.reaction" if "pde.reaction" in changes else "pde.boundary.right.robin.coefficient"
    assert f"{key} must be at least 0, but is -0.5" in problem.refusal(torch.tensor([-0.5], dtype=torch.float64))
    assert not problem.refusal(torch.tensor([0.0], dtype=torch.float64))


# Where a parameter has no meaning


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"objective.0.target": "k*x"}, "objective.0.target"),
        ({"objective.0": {"kind": "linear_state", "weight": "k"}}, "objective.0.weight"),
        ({"objective.1.reference": "k", "objective.1.control": "source"}, "objective.1.reference"),
        ({"objective.1": {"kind": "linear_control", "weight": "k", "control": "source"}}, "objective.1.weight"),
        ({"control.0.gain": "k"}, "control.0.gain"),
        ({"control.0.initial": "k"}, "control.0.initial"),
        ({"control.0.bounds": ["k", None]}, "control.0.bounds.0"),
        ({"constraints": [{"kind": "state", "upper": "k"}]}, "constraints.0.upper"),
    ],
)
def test_a_parameter_is_refused_where_it_has_no_meaning(changes: dict[str, Any], key: str) -> None:
    base = {**copy.deepcopy(BASE), "control": [{"kind": "source"}, parameter(1.0)]}
    with pytest.raises(ProblemError) as caught:
        nhgd.load(base, {"pde.source": "k", **changes})
    (issue,) = caught.value.issues
    assert issue.key == key
    assert issue.message == "expected an expression without parameters here, found 'k'"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective.0": {"kind": "compliance"}},
            "objective.0.kind: expected loads without parameters, which would change the work",
        ),
        (
            {
                "pde": {
                    "kind": "advection_diffusion",
                    "velocity": [1, 0],
                    "conductivity": [["k", 0], [0, 1]],
                    "boundary": HELD,
                },
                "element": "P2",
            },
            "pde.conductivity: expected a matrix without parameters beside stabilisation with elements P2; take ",
        ),
        (
            {
                "pde": {
                    "kind": "stokes",
                    "boundary": {"all": {"dirichlet": [0, 0]}, "left": {"dirichlet": ["k*y*(1 - y)", 0]}},
                },
                "objective": [{"kind": "tracking", "target": [0, 0]}],
                "element": "P2",
            },
            "pde.boundary: velocities are given all around and let nothing else in or out",
        ),
        (
            {
                "pde": {
                    "kind": "stokes",
                    "boundary": {
                        "all": {"dirichlet": [0, 0]},
                        "left": {"dirichlet": ["k*y*(1 - y)", 0]},
                        "right": {"dirichlet": ["y*(1 - y)", 0]},
                    },
                },
                "objective": [{"kind": "tracking", "target": [0, 0]}],
                "element": "P2",
            },
            "expected a net flux of zero for every value of the parameters",
        ),
    ],
)
def test_messages_say_what_a_parameter_cannot_change(changes: dict[str, Any], message: str) -> None:
    base = {**copy.deepcopy(BASE), "control": [parameter(1.0)]}
    base["pde"] = {"kind": "poisson", "boundary": {"left": {"dirichlet": 0}, "right": {"neumann": "k"}}}
    with pytest.raises(ProblemError) as caught:
        nhgd.load(base, changes)
    assert message in str(caught.value)


def test_a_parameter_may_drive_a_closed_flow() -> None:
    """The inflow on the left equals the outflow on the right; the pressure has mean zero."""
    sides = {side: {"dirichlet": ["k*y*(1 - y)", 0]} for side in ("left", "right")}
    content = {
        **copy.deepcopy(BASE),
        "pde": {"kind": "stokes", "boundary": {"all": {"dirichlet": [0, 0]}, **sides}},
        "objective": [{"kind": "tracking", "target": ["2*y*(1 - y)", 0]}],
        "control": parameter(1.0),
        "element": "P2",
    }
    found = nhgd.solve(nhgd.load(copy.deepcopy(content)))
    assert found.status == "converged"
    assert found.controls["k"][0] == pytest.approx(2.0, rel=1e-7)
    checks = nhgd.verify(nhgd.load(content))
    assert checks.passed, str(checks)
