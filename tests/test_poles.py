"""Steps do not jump over poles of coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.pde.poles import with_pole

PLACES = torch.linspace(0.0, 1.0, 50, dtype=torch.float64)
# A coefficient, a way, and whether the coefficient has a pole on it.
WAYS: dict[str, tuple[Callable[[Tensor], Tensor], float, float, bool]] = {
    "simple pole": (lambda k: k / (1 - k), 0.5, 1.7, True),
    "simple pole in the middle": (lambda k: k / (1 - k), 0.5, 1.5, True),
    "simple pole far before the end": (lambda k: k / (1 - k), 0.5, 1e5, True),
    "before a simple pole": (lambda k: k / (1 - k), 0.5, 0.99, False),
    "double pole": (lambda k: 1 / (k - 0.7) ** 2, 0.5, 0.8, True),
    "double pole far before the end": (lambda k: 1 / (k - 0.7) ** 2, 0.5, 1e4, True),
    "many poles": (torch.tan, 0.5, 45.5, True),
    "logarithm": (lambda k: torch.log(k**2), -0.3, 1.0, True),
    "root": (lambda k: 1 / torch.sqrt(torch.abs(k - 0.4)), -3.0, 4.0, True),
    "at some points": (lambda k: 1 / (k - PLACES), -0.5, 0.3, True),
    "at no point": (lambda k: 1 / (k - PLACES), -0.5, -0.1, False),
    "linear": (lambda k: k, -1.0, 1.0, False),
    "cubic": (lambda k: k**3 - k, -3.0, 4.0, False),
    "waves": (lambda k: torch.sin(50 * k), 0.0, 7.0, False),
    "resonance": (lambda k: 1 / (1e-4 + (k - 0.7) ** 2), 0.5, 1.1, False),
    "narrow bump": (lambda k: torch.exp(-1000 * (k - 0.3) ** 2), -1.0, 1.0, False),
    "jump": (lambda k: (k > 0.3).double() - 0.5, 0.0, 1.0, False),
    "layer": (lambda k: torch.tanh(1e5 * (k - 0.3)), 0.0, 1.0, False),
    "infinite slope": (lambda k: torch.sqrt(torch.abs(k)), -0.3, 1.0, False),
    "nothing": (lambda k: 0 * k, -3.0, 1.0, False),
}


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("name", WAYS)
def test_poles_are_distinguished_from_large_values(name: str, scale: float) -> None:
    coefficient, start, end, pole = WAYS[name]

    def path(share: float) -> dict[str, Tensor]:
        k = torch.tensor([start + share * (end - start)], dtype=torch.float64)
        return {"source": scale * coefficient(k)}

    assert with_pole(path) == ("source" if pole else None)


def load(expression: str, target: float, **more: Any) -> dict[str, Any]:
    """A problem with the load c, whose state c x (1 - x) / 2 quadratic elements have."""
    return {
        "name": "pole",
        "element": "P2",
        "mesh": {"kind": "interval", "cells": 8},
        "pde": {"kind": "poisson", "source": expression, "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "parameter", "name": "k", "initial": 0.5},
        "objective": [{"kind": "tracking", "target": f"{target}*x*(1-x)/2"}],
        **more,
    }


@pytest.mark.parametrize("method", ["auto", "newton_cg", "gradient", "lbfgs"])
@pytest.mark.parametrize(
    ("expression", "target", "optimum"),
    [
        ("k/(1-k)", 9.0, 0.9),
        ("k/(1-k)", 50.0, 50 / 51),
        ("1/(k-0.7)**2", 100.0, 0.6),
        ("tan(k)", 30.0, math.atan(30.0)),
    ],
)
def test_an_optimum_before_a_pole_is_found(expression: str, target: float, optimum: float, method: str) -> None:
    solution = nhgd.solve(nhgd.load(load(expression, target, outer={"method": method})))
    assert solution.status == "converged"
    assert float(solution.control[0]) == pytest.approx(optimum, rel=1e-6)


def test_no_iterate_is_beyond_a_pole() -> None:
    """The optimum is at k = 3, beyond the pole at 1: steps go the other way and never beyond 1."""
    seen: list[float] = []
    case = load("k/(1-k)", -1.5, control={"kind": "parameter", "name": "k", "initial": 0.99})
    problem = nhgd.load(case, {"outer.iterations": 30})
    solution = nhgd.solve(problem, callback=lambda row: seen.append(row["objective"]))
    assert float(solution.control[0]) < 1.0
    assert all(math.isfinite(each) for each in seen) and np.all(np.diff(seen) <= 0.0)


def test_steps_do_not_jump_over_poles_of_scenarios() -> None:
    """The poles are at k = 1 / q, between 1 and 1.11, and the optimum is before all of them."""
    case = load("k/(1-q*k)", 20.0, parameters={"q": {"uniform": [0.9, 1.0]}})
    case["scenarios"] = {"count": 4, "validation": 0}
    solution = nhgd.solve(nhgd.load(case, {"outer.rtol": 1e-3}))
    assert solution.status == "converged", solution.message
    assert 0.5 < float(solution.control[0]) < 1.0
