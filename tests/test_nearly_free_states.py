"""States that hardly anything holds: the Hessian has a condition number of 1e17, and recurrences lose the gradient."""

from __future__ import annotations

from typing import Any

import pytest

import nhgd_pde as nhgd

DATA: dict[str, Any] = {
    "name": "nearly_free",
    "mesh": {"kind": "rectangle", "cells": [8, 8]},
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "sin(2*pi*x)*sin(2*pi*y)"},
        {"kind": "regularisation", "norm": "l2", "weight": 1e-6},
    ],
}


@pytest.mark.parametrize("coefficient", [1e-5, 1e-6])
def test_conjugate_gradients_begin_anew_where_rounding_errors_have_led_them_astray(coefficient: float) -> None:
    """The objective is a sum of squares; its recurrence fell to -1e297 before."""
    held = {"all": {"robin": {"coefficient": coefficient, "value": 0}}}
    found, other = (
        nhgd.solve(nhgd.load({**DATA, "pde": {"kind": "poisson", "boundary": held}, "outer": {"method": method}}))
        for method in ("conjugate_gradient", "lbfgs")
    )
    assert found.status == other.status == "converged"
    assert found.objective == pytest.approx(other.objective, rel=1e-8)
    assert min(row["objective"] for row in found.history) > 0.0
