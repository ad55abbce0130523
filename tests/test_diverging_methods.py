"""A compared method whose outer step is far too long ends as a failed run with a sentence."""

from __future__ import annotations

import pytest

import nhgd_pde as nhgd
from nhgd_pde.choice.compared_methods import METHODS

SMALL = {"mesh.cells": [6, 6], "outer.method": "gradient", "outer.step": 1e9, "outer.iterations": 30}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_step_that_is_far_too_long_is_a_failed_run(method: str) -> None:
    more = {"method": method, "inner.steps": 3, "hypergradient.steps": 3}
    if METHODS[method].stochastic:
        more["inner.tests"] = 16
    found = nhgd.solve(nhgd.load("problems/semilinear_control.yaml", {**SMALL, **more}))
    assert found.status == "failed"
    assert found.message and found.objective == found.objective
