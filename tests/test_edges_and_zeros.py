"""Runs that end where derivatives are unbounded, and checks of derivatives there and where fields are zero."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from parameters import parameter

import nhgd_pde as nhgd
from problems import BASE

SIDES = {"top": {"dirichlet": [0, 0]}, "bottom": {"dirichlet": [0, 0]}}
INFLOW = {"left": {"dirichlet": ["4*y*(1 - y)", 0]}}


def file_of(pde: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(BASE), "pde": pde, "control": parameter(0.3), **more}


@pytest.mark.parametrize(
    "pde",
    [
        {"kind": "stokes", "viscosity": "k", "source": ["8*k", 0], "boundary": {**INFLOW, **SIDES}},
        {"kind": "stokes", "viscosity": "1 + k", "boundary": {**INFLOW, **SIDES}},
        {"kind": "navier_stokes", "viscosity": "k", "boundary": {**INFLOW, **SIDES, "right": {"neumann": ["k", 0]}}},
    ],
)
def test_fields_that_are_zero_up_to_rounding_are_not_reported_as_errors(pde: dict[str, Any]) -> None:
    """Poiseuille's flow has no velocity across the channel, and no pressure in the first case."""
    found = nhgd.verify(nhgd.load(file_of(pde, element="P2", objective=[{"kind": "tracking", "target": [0.2, 0]}])))
    assert found.passed, str(found)


def test_right_derivatives_at_the_edge_of_a_range_pass(tmp_path: Path) -> None:
    entry = "k + 0.1*x"
    pde = {
        "kind": "poisson",
        "conductivity": [[1, entry], [entry, 1]],
        "source": 1,
        "boundary": {"all": {"dirichlet": 0}},
    }
    problem = nhgd.load(file_of(pde, objective=[{"kind": "linear_state", "weight": -1}]))
    ended = nhgd.solve(problem, output=tmp_path / "edge")
    assert ended.status == "stopped", ended.message
    found = nhgd.verify(problem, at=tmp_path / "edge")
    assert found.passed, str(found)


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_a_descent_with_growing_slope_is_followed_to_the_edge(method: str) -> None:
    """The boundary layer of the wind 1/k thins out with k: u tends to 0 and the objective to 1/2, as sqrt(k) does."""
    pde = {
        "kind": "advection_diffusion",
        "velocity": ["1/k", "k"],
        "source": 1,
        "boundary": {"left": {"dirichlet": "sqrt(k)"}},
    }
    found = nhgd.solve(nhgd.load(file_of(pde, objective=[{"kind": "tracking", "target": -1}], method=method)))
    assert found.status == "stopped", found.message
    assert 0.0 < found.controls["k"][0] < 1e-6
    assert found.objective == pytest.approx(0.5, rel=1e-3)
