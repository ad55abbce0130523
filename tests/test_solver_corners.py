"""Solvers at the corners of what they take: hardly any unknowns, units far from one, rough solves."""

from __future__ import annotations

from typing import Any

import pytest

import nhgd_pde as nhgd

TERMS: list[dict[str, Any]] = [
    {"kind": "tracking", "target": 1},
    {"kind": "regularisation", "norm": "l2", "weight": 1e-6},
]
POISSON: dict[str, Any] = {
    "name": "corners",
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": TERMS,
}


def optimum(data: dict[str, Any], **overrides: Any) -> nhgd.Solution:
    return nhgd.solve(nhgd.load(data, {f"solver.{name}": value for name, value in overrides.items()}))


@pytest.mark.parametrize("mesh", [{"kind": "interval", "cells": 1}, {"kind": "rectangle", "cells": [1, 4]}])
def test_quadratic_elements_without_a_free_vertex_have_no_linear_level(mesh: dict[str, Any]) -> None:
    data = {**POISSON, "mesh": mesh, "element": "P2"}
    direct, iterative = optimum(data, kind="superlu"), optimum(data, kind="amg")
    assert direct.status == iterative.status == "converged"
    assert iterative.objective == pytest.approx(direct.objective, rel=1e-12)


@pytest.mark.parametrize("method", ["active_set", "lbfgs"])
def test_bounds_that_leave_no_room_for_squares(method: str) -> None:
    """The curvature of a step of 1e-300 underflows: the optimum is at the bounds."""
    control = {"kind": "source", "bounds": [-1e-300, 1e-300]}
    data = {**POISSON, "mesh": {"kind": "rectangle", "cells": [4, 4]}, "control": control, "outer": {"method": method}}
    found = optimum(data)
    assert found.status == "converged"
    assert float(found.control.max()) == 1e-300
