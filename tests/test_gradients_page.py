"""The page on gradients for optimisers and networks of other libraries: its examples run and reach known results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import minimize

import nhgd_pde as nhgd

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python_gradients.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example (\w+): run by the tests -->\n```python\n(.*?)```", PAGE, re.DOTALL))
# The optimum on 64 x 64 cells; `discrete_optimum` of test_reference_cases has it up to 8e-9 with a finer rule.
OPTIMUM = 7.782654205e-4


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(ROOT)
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def run(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[name], f"docs/python_gradients.md: {name}", "exec"), names)
    return names


@pytest.mark.parametrize("name", ["scipy", "newton"])
def test_scipy_reaches_the_known_optimum(name: str) -> None:
    found = run(name)["found"]
    assert abs(found.fun / OPTIMUM - 1) < 2e-9, found


def test_a_network_learns_through_the_solve() -> None:
    assert float(run("network")["loss"]) < 1e-2


def test_an_optimiser_of_torch_reaches_the_optimum_of_solve() -> None:
    names = run("adam")
    value = float(names["pde"].objective(names["v"].detach()))
    best = nhgd.solve(nhgd.load("problems/semilinear_control.yaml", {"mesh.cells": [12, 12]})).objective
    assert abs(value / best - 1) < 1e-8


@pytest.mark.parametrize("method", ["Newton-CG", "trust-krylov"])
def test_other_methods_of_scipy_take_an_objective_in_larger_units(method: str) -> None:
    units = 1e6
    weights = {"objective.0.weight": units, "objective.1.weight": 1e-6 * units}
    phi = nhgd.reduced(nhgd.load("problems/poisson_control.yaml", weights))
    options: dict[str, float] = {"xtol": 1e-10, "maxiter": 50}
    if method == "trust-krylov":
        options = {"gtol": 1e-5, "initial_trust_radius": 1e4, "max_trust_radius": 1e6, "maxiter": 30}
    arguments = {"jac": phi.derivative, "hessp": phi.hessian_product, "method": method, "options": options}
    found = minimize(phi.value, phi.start, **arguments)
    assert found.fun / units == pytest.approx(OPTIMUM, rel=1e-9)
