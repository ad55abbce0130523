"""Ranges of coefficients: a step to an inadmissible value is refused, and the run reports the bound that it met."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from parameters import parameter
from scipy.optimize import brentq

import nhgd_pde as nhgd
from nhgd_pde.engine.admissible import held_back
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.search import outer_space
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.pde.ranges import CONDUCTIVITY, POISSON_RATIO, POISSON_RATIO_PLANE_STRESS, POSITIVE
from nhgd_pde.problem_file.errors import ProblemError
from problems import BASE

PAR_NU = "tests/faults/par_nu.yaml"
HELD = {"left": {"dirichlet": 1}}
CLAMPED = {"left": {"dirichlet": [0, 0]}, "right": {"neumann": [0, -1]}}
CHANNEL = {"left": {"dirichlet": ["y*(1 - y)", 0]}, "bottom": {"dirichlet": [0, 0]}, "top": {"dirichlet": [0, 0]}}
STILL = {"all": {"dirichlet": [0, 0]}}
TIME = {"end": 0.1, "steps": 3, "initial": "sin(pi*x)"}


def poisson(**more: Any) -> dict[str, Any]:
    return {"kind": "poisson", "source": 1, "boundary": HELD, **more}


def file_of(pde: dict[str, Any], sign: float = 1.0, **more: Any) -> dict[str, Any]:
    """A problem that minimises the parameter k or -k for any state, so that k ends at its bound."""
    terms = [{"kind": "linear_control", "weight": sign}]
    content = {**copy.deepcopy(BASE), "pde": pde, "control": parameter(0.3), "objective": terms}
    return {**content, **copy.deepcopy(more)}


# Key, rule, and the value of k at the edge.
EDGES: dict[str, tuple[dict[str, Any], str, str, float]] = {
    "conductivity": (file_of(poisson(conductivity="k")), "pde.conductivity", "above 0", 0.0),
    # The quadrature points lie inside the cells; the smallest x is 1/24.
    "in space": (file_of(poisson(conductivity="k + 0.1*x")), "pde.conductivity", "above 0", -0.1 / 24),
    "matrix": (
        file_of(poisson(conductivity=[[1, "k"], ["k", 1]]), -1.0),
        "the smallest eigenvalue of pde.conductivity",
        "above 0",
        1.0,
    ),
    "reaction": (
        file_of(poisson(reaction="k"), inner={"model": "energy"}),
        "pde.reaction",
        "at least 0",
        0.0,
    ),
    "exchange": (
        file_of(
            poisson(boundary={"left": {"robin": {"coefficient": "k", "value": 1}}, "right": {"dirichlet": 0}}),
            inner={"model": "energy"},
        ),
        "pde.boundary.left.robin.coefficient",
        "at least 0",
        0.0,
    ),
    "young": (file_of({"kind": "elasticity", "young": "k", "boundary": CLAMPED}), "pde.young", "above 0", 0.0),
    "ratio below": (
        file_of({"kind": "elasticity", "poisson_ratio": "k", "boundary": CLAMPED}),
        "pde.poisson_ratio",
        "above -1",
        -1.0,
    ),
    "ratio above": (
        file_of({"kind": "elasticity", "poisson_ratio": "k", "boundary": CLAMPED}, -1.0),
        "pde.poisson_ratio",
        "below 0.5",
        0.5,
    ),
    "ratio in plane stress": (
        file_of({"kind": "elasticity", "plane": "stress", "poisson_ratio": "k", "boundary": CLAMPED}, -1.0),
        "pde.poisson_ratio",
        "at most 0.5",
        0.5,
    ),
    "stokes": (
        file_of({"kind": "stokes", "viscosity": "k", "boundary": CHANNEL}, element="P2"),
        "pde.viscosity",
        "above 0",
        0.0,
    ),
    "navier_stokes": (
        file_of({"kind": "navier_stokes", "viscosity": "1 + k", "boundary": CHANNEL}, element="P2"),
        "pde.viscosity",
        "above 0",
        -1.0,
    ),
    "helmholtz": (
        file_of(
            {
                "kind": "helmholtz",
                "wavenumber": "k",
                "source": 1,
                "boundary": {"left": {"dirichlet": 0}, "right": {"absorbing": True}},
            }
        ),
        "pde.wavenumber",
        "above 0",
        0.0,
    ),
    "capacity": (
        file_of({"kind": "heat", "capacity": "k", "boundary": HELD}, time=TIME),
        "pde.capacity",
        "above 0",
        0.0,
    ),
    "burgers": (
        file_of({"kind": "burgers", "viscosity": "k", "boundary": STILL}, time={**TIME, "initial": ["y*(1 - y)", 0]}),
        "pde.viscosity",
        "above 0",
        0.0,
    ),
    "allen_cahn": (
        file_of({"kind": "allen_cahn", "epsilon": "k"}, time=TIME),
        "pde.epsilon",
        "above 0",
        0.0,
    ),
    "not a number": (file_of(poisson(source="log(k)")), "pde.source", "finite", 0.0),
    "boundary value": (
        file_of(poisson(boundary={"left": {"dirichlet": "log(k)*y"}})),
        "pde.boundary.left.dirichlet",
        "finite",
        0.0,
    ),
    "initial value": (
        file_of({"kind": "heat", "boundary": HELD}, time={**TIME, "initial": "log(k)*x"}),
        "time.initial",
        "finite",
        0.0,
    ),
    "several": (
        file_of(poisson(conductivity="k + b"), control=[parameter(0.3), {**parameter(0.2, "b"), "bounds": [0.2, 0.2]}]),
        "pde.conductivity",
        "above 0",
        -0.2,
    ),
    "bounds beyond the range": (
        file_of(poisson(conductivity="k"), control={**parameter(0.3), "bounds": [-1, 2]}),
        "pde.conductivity",
        "above 0",
        0.0,
    ),
    "scenarios": (
        file_of(
            poisson(conductivity="k + 0.1*xi"),
            parameters={"xi": {"uniform": [-1, 1]}},
            scenarios={"sampling": "quadrature", "rule": "tensor", "points": 2, "validation": 0},
        ),
        "pde.conductivity",
        "above 0",
        0.1 / np.sqrt(3.0),
    ),
}


def check_edge(solution: nhgd.Solution, key: str, rule: str, edge: float, start: float = 0.3) -> None:
    assert solution.status == "stopped", solution.message
    assert solution.message.startswith(f"{key} must be {rule}, but is "), solution.message
    assert "control.bounds" in solution.message
    found = float(solution.controls["k"][0])
    assert f"the steps end at k = {found:.9g}" in solution.message
    # The run ends inside the range, within a millionth of the edge.
    assert abs(found - edge) <= 2e-6 * abs(start - edge)
    assert solution.stats["outer_iterations"] <= 15


@pytest.mark.parametrize("name", EDGES)
def test_a_run_ends_at_the_edge_of_the_range(name: str) -> None:
    content, key, rule, edge = EDGES[name]
    check_edge(nhgd.solve(nhgd.load(copy.deepcopy(content))), key, rule, edge)


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
@pytest.mark.parametrize("outer", ["lbfgs", "newton_cg", "gradient"])
def test_poissons_ratio_stays_below_a_half(method: str, outer: str) -> None:
    """The optimum of the fit lies at 0.5003, where the material has no positive energy."""
    solution = nhgd.solve(nhgd.load(PAR_NU, {"method": method, "outer.method": outer}))
    assert solution.status == "stopped"
    assert solution.message.startswith("pde.poisson_ratio must be below 0.5, but is 0.5")
    assert "control.bounds" in solution.message
    found = float(solution.controls["a"][0])
    assert 0.5 - 1e-6 < found < 0.5
    assert solution.stats["outer_iterations"] <= 15


def test_the_fit_converges_with_the_bounds_that_the_message_recommends() -> None:
    control = {"kind": "parameter", "name": "a", "initial": 0.2, "bounds": [-0.9, 0.49]}
    solution = nhgd.solve(nhgd.load(PAR_NU, {"control": control}))
    assert solution.status == "converged", solution.message
    assert solution.controls["a"][0] == pytest.approx(0.49, abs=1e-12)


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
@pytest.mark.parametrize("outer", ["lbfgs", "newton_cg", "gradient", "mma"])
def test_all_outer_methods_end_at_the_same_edge(method: str, outer: str) -> None:
    """Methods with a line search, and moving asymptotes without one."""
    content = file_of(poisson(conductivity="k"), method=method, outer={"method": outer})
    content["control"] = {**parameter(0.3), "bounds": [-1, 2]}
    solution = nhgd.solve(nhgd.load(content))
    assert solution.status == "stopped", solution.message
    assert "pde.conductivity must be above 0" in solution.message
    assert 0.0 < float(solution.controls["k"][0]) < 1e-3
    assert solution.stats["outer_iterations"] <= 40


@pytest.mark.parametrize("outer", ["lbfgs", "newton_cg"])
@pytest.mark.parametrize("truth", [1e-1, 1e-2, 1e-3])
def test_an_optimum_near_the_edge_of_the_range_is_found(outer: str, truth: float) -> None:
    """u = 1/k (x - x^2/2) with the target of a small k: steps are too long, are shortened, and lead to the optimum."""
    problem = file_of(
        {"kind": "poisson", "conductivity": "k", "source": truth, "boundary": {"left": {"dirichlet": 0}}},
        control=parameter(1.0),
        objective=[{"kind": "tracking", "target": "x - x**2/2"}],
        mesh={"kind": "interval", "cells": [16]},
        element="P2",
        outer={"method": outer, "iterations": 400},
    )
    solution = nhgd.solve(nhgd.load(problem))
    assert solution.status == "converged", solution.message
    assert float(solution.controls["k"][0]) == pytest.approx(truth, rel=1e-6)


def thinner(c: Any, v: torch.Tensor) -> Any:
    return {**c, "conductivity": 1.0 + v}


def test_a_control_map_in_python_stays_in_the_range() -> None:
    content = file_of(poisson(), control={"kind": "python", "python": thinner})
    solution = nhgd.solve(nhgd.load(content))
    assert solution.status == "stopped"
    assert solution.message.startswith("pde.conductivity must be above 0, but is -")
    assert -1.0 < solution.control.min() < -0.99
    assert solution.stats["outer_iterations"] <= 15


def test_a_step_to_an_overflow_is_refused() -> None:
    """exp(1/k) overflows below k = 1/709, and the square of the state earlier."""
    solution = nhgd.solve(nhgd.load(file_of(poisson(source="exp(1/k)"))))
    assert solution.status == "stopped"
    assert solution.message.startswith("pde.source must")
    assert 1.0 / 710.0 < float(solution.controls["k"][0]) < 1.0 / 300.0
    assert solution.stats["outer_iterations"] <= 40


def test_a_conductivity_that_underflows_to_zero_is_refused() -> None:
    content = file_of(poisson(), control={"kind": "log_conductivity", "space": "constant"})
    solution = nhgd.solve(nhgd.load(content))
    assert solution.status == "stopped"
    assert solution.message.startswith("pde.conductivity must be above 0, but is 0 at")
    assert solution.stats["outer_iterations"] <= 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (file_of(poisson(conductivity="k - 1")), "pde.conductivity: expected a positive conductivity, found -0.7 at"),
        (
            file_of(poisson(conductivity="k"), control={**parameter(1.0), "bounds": [-2, -1]}),
            "pde.conductivity: expected a positive conductivity, found -1 at",
        ),
        (
            file_of(poisson(conductivity=[[1, "10*k"], ["10*k", 1]])),
            "pde.conductivity: expected a positive definite conductivity, found the eigenvalue -2 at",
        ),
        (file_of(poisson(source="log(k - 1)")), "pde.source: expected finite values, found nan at"),
        (
            file_of(poisson(boundary={"left": {"dirichlet": "1/(k - 0.3)"}})),
            "pde.boundary.left.dirichlet: expected finite values, found inf at",
        ),
        (
            file_of(poisson(), control={"kind": "python", "python": thinner, "initial": "-2*x"}),
            "control.initial: at the starting values pde.conductivity must be above 0, but is -0.9166",
        ),
        (
            file_of({"kind": "heat", "capacity": "k - 1", "boundary": HELD}, time=TIME),
            "pde.capacity: expected a positive value, found -0.7 at",
        ),
        (
            file_of(poisson(conductivity="k + xi"), parameters={"xi": {"uniform": [-1, 1]}}, scenarios={"count": 8}),
            "pde.conductivity: expected a positive conductivity, found -",
        ),
    ],
)
def test_a_start_outside_the_range_is_refused_when_the_file_is_read(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        nhgd.load(copy.deepcopy(content))
    assert message in str(caught.value)


def test_a_start_is_projected_onto_its_bounds_before_its_range_is_checked() -> None:
    content = file_of(poisson(conductivity="k"), control={"kind": "parameter", "name": "k", "bounds": [0.1, None]})
    solution = nhgd.solve(nhgd.load(content))
    assert solution.status == "converged", solution.message
    assert solution.controls["k"][0] == 0.1


def test_the_ends_of_ranges_are_admissible_or_not_as_declared() -> None:
    def one(value: float) -> torch.Tensor:
        return torch.tensor([0.1, value], dtype=torch.float64)

    assert POSITIVE.breach(one(1e-300)) is None
    for value in (0.0, -1.0, float("nan")):
        found = POSITIVE.breach(one(value))
        assert found is not None and found.index == 1
    assert POISSON_RATIO.breach(one(0.5)) is not None
    assert POISSON_RATIO_PLANE_STRESS.breach(one(0.5)) is None
    assert POISSON_RATIO_PLANE_STRESS.breach(one(-1.0)) is not None
    matrix = torch.tensor([[2.0, 3.0], [-1.0, 2.0]], dtype=torch.float64)[..., None, None]
    # Its symmetric part has the eigenvalues 1 and 3.
    assert CONDUCTIVITY.breach(matrix) is None
    found = CONDUCTIVITY.breach(matrix - torch.eye(2, dtype=torch.float64)[..., None, None])
    assert found is not None and found.matrix and abs(found.value) < 1e-15


def test_a_step_is_shortened_before_anything_is_evaluated() -> None:
    """The step goes half of the way to the edge, then nine tenths, for any length of the proposed step."""
    problem = nhgd.load(file_of(poisson(conductivity="k"), control=parameter(0.3))).pde
    space, outer = outer_space(problem), LBFGS(step=50.0)
    u, v = problem.start()
    first, _ = Adjoint().evaluate(problem, v, Adjoint().init(problem, u, v), Accuracy(1e-10, 1e-10))
    proposal, state = outer.propose(space, outer.init(space, first))
    assert float(proposal[0]) < 0.0
    before = problem.counts.residuals
    half, _, _ = held_back(problem, outer, space, state, proposal, False)
    nearer, _, edge = held_back(problem, outer, space, state, proposal, True)
    assert 0.14 < float(half[0]) < 0.16
    assert problem.counts.residuals == before
    assert edge is not None
    assert 0.0 < float(edge.point[0]) < 0.01
    assert 0.02 < float(nearer[0]) < 0.04
    assert problem.refusal(v) == ""


@pytest.mark.slow
def test_scenarios_outside_the_batch_keep_the_optimum_inside_the_range() -> None:
    """u = w/(k + xi) with xi = -q or q and the target c w: sum (1/(k + xi) - c)^2 is least within the range of both.

    The term of the nominal scenario is least at k = 1/c, where the other scenario has a negative conductivity.
    """
    q, c = 0.3 / np.sqrt(3.0), 8.0
    content = file_of(
        {"kind": "poisson", "conductivity": "k + 0.3*xi", "source": 1, "boundary": {"left": {"dirichlet": 0}}},
        mesh={"kind": "interval", "cells": [8]},
        element="P2",
        control=parameter(1.0),
        objective=[{"kind": "tracking", "target": f"{c}*(x - x**2/2)"}],
        parameters={"xi": {"uniform": [-1, 1]}},
        scenarios={"sampling": "quadrature", "rule": "tensor", "points": 2, "validation": 0},
        outer={"rtol": 1e-6, "method": "newton_cg"},
    )
    assert 1.0 / c < q
    found = nhgd.solve(nhgd.load(content))
    assert found.status == "converged", found.message

    def slope(k: float) -> float:
        return sum(-(1.0 / (k + xi) - c) / (k + xi) ** 2 for xi in (-q, q))

    assert float(found.controls["k"][0]) == pytest.approx(brentq(slope, q + 0.01, 2.0), rel=1e-6)
