"""Solvers at the corners of what they take: hardly any unknowns, units far from one, rough solves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.linalg.corrected_solves import refined

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


PASSED: dict[str, dict[str, Any]] = {
    "heat_boundary": {"mesh.cells": [24, 24], "time.steps": 2, "time.memory": "1 MB"},
    "heat_windows_fds": {"mesh.cells": 450, "time.steps": 10},
}


@pytest.mark.parametrize("name", PASSED)
def test_steps_that_are_passed_correct_rough_solves(name: str) -> None:
    """Two corrections leave 1e-4 of a state with solves to 1e-2, and none leaves 1e-2 of an adjoint variable."""
    file = f"problems/{name}.yaml"
    direct, rough = (
        nhgd.solve(nhgd.load(file, {**PASSED[name], **solver}))
        for solver in ({"solver.kind": "superlu"}, {"solver.kind": "amg", "solver.rtol": 1e-2})
    )
    assert direct.status == rough.status == "converged"
    assert rough.objective == pytest.approx(direct.objective, rel=1e-9)
    assert rough.stats["state_residual"] <= 1e-8 and rough.stats["adjoint_residual"] <= 1e-8


@pytest.mark.parametrize("rtol", [0.1, 0.9])
def test_solves_that_leave_most_of_the_error_are_refused(rtol: float) -> None:
    with pytest.raises(nhgd.ProblemError, match=r"solver\.rtol: expected a number above 0 and below 0\.1, or auto"):
        nhgd.load("problems/poisson_control.yaml", {"solver.kind": "amg", "solver.rtol": rtol})


def test_a_correction_that_does_not_help_is_left_out() -> None:
    """Rows are corrected until the residual is small, or no longer halved; a right-hand side of zero has none."""
    a = torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
    b = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    solves = []

    def rough(r: torch.Tensor) -> torch.Tensor:
        solves.append(r)
        return 0.8 * (r @ a.inverse())

    x, left = refined(rough, lambda y: y @ a, b)
    assert len(solves) == 15
    assert float((x - b @ a.inverse()).norm()) <= 1e-10 * float(x.norm()) and float(left.norm()) <= 1e-9
    x, left = refined(lambda r: -r, lambda y: y @ a, b)
    assert torch.equal(x, -b) and torch.equal(left, b + b @ a)
