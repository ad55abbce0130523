"""Costs of controls in time: of the order of the scheme, against the closed form of a problem with one unknown."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import nhgd_pde as nhgd
from problems import slope

# u_t - u_xx = 0 on two elements of length H, u = 0 on the left, u = v on the right: one unknown, at x = 1/2.
H, ALPHA, GAMMA = 0.5, 0.1, 0.2
MASS, STIFFNESS, MASS_SIDE, STIFFNESS_SIDE = 2.0 * H / 3.0, 2.0 / H, H / 6.0, -1.0 / H
# The adjoint variable p is chosen; WEIGHT is the weight of int u that gives it, and CONTROL is the optimum.
P, SLOPE = f"{GAMMA}*(1 - t)*exp(-t)", f"(-{GAMMA}*(2 - t)*exp(-t))"
WEIGHT = f"({MASS}*{SLOPE} - {STIFFNESS}*{P})/{H}"
CONTROL = f"-({0.5 * H}*{WEIGHT} - {MASS_SIDE}*{SLOPE} + {STIFFNESS_SIDE}*{P})/{ALPHA}"
STEPS = [8, 16, 32, 64]


def exact(expression: str, t: np.ndarray | float) -> Any:
    return eval(expression, {"exp": np.exp, "t": t})


START = float(exact(CONTROL, 0.0))
FILE: dict[str, Any] = {
    "name": "side",
    "mesh": {"kind": "interval", "cells": 2},
    "pde": {"kind": "heat", "boundary": {"left": {"dirichlet": 0}}},
    "time": {"end": 1.0, "steps": 8, "scheme": "crank_nicolson", "initial": f"where(x > 0.9, {START!r}, 0)"},
    "control": {"kind": "dirichlet", "on": "right", "space": "time"},
    "objective": [{"kind": "linear_state", "weight": WEIGHT}, {"kind": "regularisation", "weight": ALPHA}],
}


def least(more: Any = lambda t, v: 0.0, side: float = START) -> float:
    """The objective of the optimum, continuous in time, with more terms in the control.

    If the initial value of a side is not the value of the control, the unknown jumps so that M (u, v) is continuous.
    """

    def rates(t: float, y: np.ndarray) -> list[float]:
        v, step = exact(CONTROL, t), 1e-5
        change = (exact(CONTROL, t + step) - exact(CONTROL, t - step)) / (2.0 * step)
        cost = exact(WEIGHT, t) * (H * y[0] + 0.5 * H * v) + 0.5 * ALPHA * v**2 + more(t, v)
        return [-(STIFFNESS * y[0] + MASS_SIDE * change + STIFFNESS_SIDE * v) / MASS, cost]

    return float(
        solve_ivp(rates, (0.0, 1.0), [MASS_SIDE / MASS * (side - START), 0.0], rtol=1e-11, atol=1e-13).y[1, -1]
    )


def solve(steps: int, overrides: dict[str, Any]) -> nhgd.Solution:
    found = nhgd.solve(nhgd.load(copy.deepcopy(FILE), {"time.steps": steps, **overrides}))
    assert found.status == "converged"
    return found


def errors(overrides: dict[str, Any], value: float) -> tuple[list[float], list[float]]:
    """The errors of the objective, and of the control at the ends of the steps except for the first and the last step.

    The former acts in a step and a half and the latter in half a step, whose middles are not their places.
    """
    objectives, controls = [], []
    for steps in STEPS:
        found = solve(steps, overrides)
        objectives.append(abs(found.objective - value))
        controls.append(np.abs(found.control - exact(CONTROL, np.arange(1, steps + 1) / steps))[1:-1].max())
    return objectives, controls


@pytest.mark.parametrize("space", ["time", "P1", "P0"])
def test_boundary_values_in_time(space: str) -> None:
    objectives, controls = errors({"control.space": space}, least())
    step = [1.0 / steps for steps in STEPS]
    assert slope(step, objectives) == pytest.approx(2.0, abs=0.3)
    assert slope(step, controls) == pytest.approx(2.0, abs=0.2)
    assert controls[-1] < 2e-4 * START


def test_an_initial_state_that_does_not_fit_does_not_reduce_the_order() -> None:
    """At the side the state jumps from 0 to the control."""
    value, steps = least(side=0.0), (256, 512)
    gaps = [abs(solve(n, {"time.initial": 0}).objective - value) for n in steps]
    assert slope([1.0 / n for n in steps], gaps) > 1.6
    assert gaps[-1] < 1e-5 * abs(value)


def test_boundary_values_of_the_implicit_euler_method() -> None:
    objectives, controls = [], []
    for steps in STEPS:
        found = solve(steps, {"time.scheme": "implicit_euler"})
        objectives.append(abs(found.objective - least()))
        controls.append(abs(found.control[steps // 2 - 1] - exact(CONTROL, 0.5)))
    step = [1.0 / steps for steps in STEPS]
    assert slope(step, objectives) == pytest.approx(1.0, abs=0.1)
    assert slope(step, controls) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_bounds_that_are_not_met_change_nothing(method: str) -> None:
    overrides = {"control.bounds": ["-20 - t", "20 + t"], "method": method}
    free, bounded = solve(16, {"method": method}), solve(16, overrides)
    assert bounded.objective == pytest.approx(free.objective, rel=1e-8)


def test_references_and_linear_costs_in_time() -> None:
    """alpha/2 int (v - r)^2 + int w v with w = alpha r has the same optimum, and int alpha/2 r^2 more."""
    reference = "exp(-t)*(1 + t)"
    terms = [
        FILE["objective"][0],
        {"kind": "regularisation", "weight": ALPHA, "reference": reference},
        {"kind": "linear_control", "weight": f"{ALPHA}*{reference}"},
    ]
    value = least(lambda t, v: 0.5 * ALPHA * exact(reference, t) ** 2)
    objectives, controls = errors({"objective": terms}, value)
    step = [1.0 / steps for steps in STEPS]
    assert slope(step, objectives) == pytest.approx(2.0, abs=0.3)
    assert slope(step, controls) == pytest.approx(2.0, abs=0.15)


def test_absolute_values_in_time() -> None:
    """For v > 0, an l1 term is a linear cost."""
    assert exact(CONTROL, np.linspace(0.0, 1.0)).min() > -1.0
    shifted = {"objective.1.reference": -3, "time.steps": 16}
    costs = []
    for more in ({"kind": "regularisation", "norm": "l1", "weight": 1e-3}, {"kind": "linear_control", "weight": 1e-3}):
        terms = [FILE["objective"][0], {**FILE["objective"][1], "reference": 3}, more]
        costs.append(solve(16, {**shifted, "objective": terms}))
    assert costs[0].control.min() > 0.0
    assert costs[0].objective == pytest.approx(costs[1].objective, rel=1e-8)


def cost_of_values(u: Any, grad: Any, v: Any, x: Any) -> Any:
    return 0.5 * ALPHA * v**2


def test_costs_in_python_have_the_same_order() -> None:
    """The cost of a boundary control is evaluated at the times of the integrals of the equation."""
    terms = [FILE["objective"][0], {"kind": "python", "python": cost_of_values, "on": "right"}]
    objectives, _ = errors({"objective": terms, "outer.rtol": 1e-6}, least())
    step = [1.0 / steps for steps in STEPS]
    assert slope(step, objectives) == pytest.approx(2.0, abs=0.4)


OTHERS: dict[str, dict[str, Any]] = {
    "neumann": {"control.kind": "neumann"},
    "robin": {"control.kind": "robin", "pde.boundary.right": {"robin": {"coefficient": 2, "value": 0}}},
    "source": {"control": {"kind": "source", "space": "time"}, "pde.boundary.right": {"neumann": "sin(t)"}},
    "initial": {"control": {"kind": "initial"}, "pde.boundary.right": {"neumann": "sin(t)"}},
    "given values": {"control": {"kind": "source", "space": "time"}, "pde.boundary.right": {"dirichlet": "t*exp(-t)"}},
}


@pytest.mark.parametrize(("scheme", "order"), [("crank_nicolson", 2.0), ("implicit_euler", 1.0)])
@pytest.mark.parametrize("kind", list(OTHERS))
def test_the_objective_of_other_controls(kind: str, scheme: str, order: float) -> None:
    """There is a target in time; the order follows from differences between meshes in time."""
    common = {
        "time.initial": 0,
        "objective": [{"kind": "tracking", "target": "1 + x*t"}, {"kind": "regularisation", "weight": ALPHA}],
    }
    values = [solve(steps, {**OTHERS[kind], **common, "time.scheme": scheme}).objective for steps in (16, 32, 64, 128)]
    gaps = np.abs(np.diff(values))
    assert slope([1.0 / 16, 1.0 / 32, 1.0 / 64], gaps.tolist()) == pytest.approx(order, abs=0.25)


def test_the_first_and_the_last_value_are_of_order_one() -> None:
    """The load, the adjoint variable and its rate have their means over the step and a half that the first value acts
    in, and over the half step of the last one, at different times: no place makes up for all of them.
    """
    found = [solve(steps, {}).control for steps in STEPS]
    last = [abs(v[-1] - exact(CONTROL, 1.0)) for v in found]
    assert slope([1.0 / steps for steps in STEPS], last) == pytest.approx(1.0, abs=0.1)
    first = [abs(v[0] - exact(CONTROL, 1.0 / steps)) for v, steps in zip(found, STEPS, strict=True)]
    assert max(first[-1], last[-1]) < 0.01 * START
