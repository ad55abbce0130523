"""The equation of Allen and Cahn: manufactured solutions, phases that separate, a control with a known optimum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from evolutions import evolution, l2_error, solved

import nhgd_pde as nhgd
from benchmarks.reference import extrapolated, orders
from nhgd_pde.pde.evolution import EvolutionEquation
from nhgd_pde.problem_file.errors import ProblemError

FILE = "problems/allen_cahn_control.yaml"
schemes = pytest.mark.parametrize("scheme", ["implicit_euler", "crank_nicolson"])


def optimum() -> float:
    """|y* - target|^2 / 2 + alpha |u*|^2 / 2 of the shipped problem, by an exact quadrature in time."""
    epsilon, a, alpha, end = 0.1, 0.01, 0.01, 0.25
    x, w = np.polynomial.legendre.leggauss(6)
    t, w = (x + 1) / 2 * end, w / 2 * end
    share, state = 1 - t / end, 0.5 + t
    # The products of phi and phi^3 have the integrals (3/8)^2 and (5/16)^2; phi^2 has 1/4.
    linear, cubic = 1 / end + (2 * math.pi**2 * epsilon - 1 / epsilon) * share, 3 * state**2 * share / epsilon
    misfit = a**2 * (linear**2 / 4 + 2 * linear * cubic * 9 / 64 + cubic**2 * 25 / 256)
    return float(0.5 * (w * misfit).sum() + a**2 / (2 * alpha) * (w * share**2).sum() / 4)


@schemes
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_manufactured_solutions_converge_at_the_order_of_the_element(element: str, scheme: str) -> None:
    """Both schemes have no error for solutions that are linear in time."""
    exact = "(1 + t)*sin(2*x + y)"
    source = f"sin(2*x + y) + 5*0.4*{exact} + (({exact})**3 - {exact})/0.4"
    pde = {"kind": "allen_cahn", "epsilon": 0.4, "source": source, "boundary": {"all": {"dirichlet": exact}}}
    pde["boundary"]["right"] = {"neumann": "0.4*(1 + t)*2*cos(2*x + y)"}
    errors = []
    for n in (2, 4, 8, 16):
        time = {"end": 0.5, "steps": 2, "scheme": scheme, "initial": "sin(2*x + y)"}
        built = evolution(
            {"mesh": {"kind": "rectangle", "cells": [n, n]}, "element": element, "pde": pde, "time": time}
        )
        errors.append(l2_error(built, solved(built)[-1], [exact], 0.5))
    assert orders(errors)[-1] == pytest.approx(int(element[1]) + 1, abs=0.1)


@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1), ("crank_nicolson", 2)])
def test_it_converges_in_time_at_the_order_of_the_scheme(scheme: str, order: int) -> None:
    """P1 elements have no error for a function that is linear in space."""
    exact = "exp(-t)*(1 + x)"
    source = f"-{exact} + (({exact})**3 - {exact})/0.5"
    boundary = {"left": {"dirichlet": exact}, "right": {"neumann": "0.5*exp(-t)"}}
    pde = {"kind": "allen_cahn", "epsilon": 0.5, "source": source, "boundary": boundary}
    errors = []
    for steps in (4, 8, 16, 32):
        time = {"end": 1, "steps": steps, "scheme": scheme, "initial": "1 + x"}
        built = evolution({"pde": pde, "time": time})
        errors.append(l2_error(built, solved(built)[-1], [exact], 1.0))
    assert orders(errors)[-1] == pytest.approx(order, abs=0.1)


@schemes
def test_a_uniform_mixture_follows_its_ordinary_equation(scheme: str) -> None:
    """u' = (u - u^3)/epsilon: u^2/(1 - u^2) grows by exp(2 t/epsilon)."""
    errors = []
    for steps in (16, 32, 64):
        time = {"end": 0.4, "steps": steps, "scheme": scheme, "initial": 0.1}
        built = evolution({"pde": {"kind": "allen_cahn", "epsilon": 0.2}, "time": time})
        ratio = 0.01 / 0.99 * math.exp(2 * 0.4 / 0.2)
        state = solved(built)[-1].numpy()
        assert np.ptp(state) < 1e-12
        errors.append(abs(state[0] - math.sqrt(ratio / (1 + ratio))))
    assert orders(errors)[-1] == pytest.approx(1 if scheme == "implicit_euler" else 2, abs=0.15)


def test_a_layer_between_phases_stands_still() -> None:
    """tanh(x/(sqrt(2) epsilon)) is stationary; time steps much longer than epsilon reach it from a jump."""
    mesh = {"kind": "interval", "size": 2, "origin": -1, "cells": 200}
    pde = {"kind": "allen_cahn", "epsilon": 0.05, "boundary": {"left": {"dirichlet": -1}, "right": {"dirichlet": 1}}}
    built = evolution({"mesh": mesh, "pde": pde, "time": {"end": 4, "steps": 8, "initial": "sign(x)"}})
    assert isinstance(built.equation, EvolutionEquation)
    state = solved(built)[-1].numpy()
    assert np.abs(state - np.tanh(built.space.nodes[0] / (math.sqrt(2) * 0.05))).max() < 0.01


# The shipped problem


def test_control_and_objective_converge_to_the_known_optimum_at_order_two() -> None:
    values, errors = [], []
    for n in (8, 16, 32):
        overrides = {"mesh.cells": [n, n], "time.steps": n // 2, "outer.rtol": 1e-10, "method": "adjoint"}
        solution = nhgd.solve(nhgd.load(FILE, overrides))
        assert solution.status == "converged"
        values.append(solution.objective)
        stages = (np.arange(n // 2) + 0.5) / (n // 2) * 0.25
        exact = -(1 - 4 * stages)[:, None] * np.prod(np.cos(np.pi * solution.problem.control.parts[0].nodes), axis=0)
        errors.append(float(np.abs(solution.control.reshape(n // 2, -1) - exact).max()))
    assert orders([abs(value - optimum()) for value in values])[-1] == pytest.approx(2.0, abs=0.15)
    assert extrapolated(values, (2, 4)) == pytest.approx(optimum(), rel=1e-4)
    assert orders(errors)[-1] > 1.8


def test_nhgd_and_the_adjoint_find_the_same_optimum() -> None:
    overrides = {"mesh.cells": [8, 8], "time.steps": 8}
    ours, exact = (nhgd.solve(nhgd.load(FILE, {**overrides, "method": method})) for method in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-8)
    assert ours.stats["outer_iterations"] <= 1.2 * exact.stats["outer_iterations"]


def test_every_derivative_of_the_shipped_problem_is_right() -> None:
    assert nhgd.verify(nhgd.load(FILE, {"mesh.cells": [4, 4], "time.steps": 4})).passed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pde.epsilon": 0}, "pde.epsilon: expected a positive value, found 0"),
        ({"pde": {"kind": "allen_cahn"}}, "pde.epsilon: missing"),
        ({"time": None, "objective.0.target": "x"}, "time: missing; an equation of kind allen_cahn evolves in time"),
    ],
)
def test_mistakes_name_the_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        evolution({"pde": {"kind": "allen_cahn", "epsilon": 0.1}, **overrides})
    assert message in str(caught.value)
