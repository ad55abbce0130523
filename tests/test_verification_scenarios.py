"""`verify` over scenarios: derivatives that are wrong for some random inputs only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_verification import cubed, cubed_twice, failures
from torch import Tensor

import nhgd_pde as nhgd


def problem(form: Any, **more: Any) -> nhgd.Problem:
    return nhgd.load(
        {
            "name": "own",
            "mesh": {"kind": "rectangle", "cells": [4, 4]},
            "pde": {
                "python": form,
                "source": "4*y",
                "coefficients": {"a": "exp(0.5*xi)"},
                "boundary": {"all": {"dirichlet": 0}},
            },
            "parameters": {"xi": {"normal": [0, 1]}},
            "scenarios": {"count": 16},
            "control": {"kind": "source"},
            "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-3}],
            **more,
        }
    )


def right(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return u**3 - c["source"], c["a"] * grad


def test_right_derivatives_pass_in_all_scenarios() -> None:
    found = nhgd.verify(problem(right))
    assert found.passed, str(found)
    assert sum(check.name.startswith("scenarios: ") for check in found.checks) >= 10


@pytest.mark.parametrize("error", [1e-3, 3e-6])
@pytest.mark.parametrize("large", [True, False])
def test_a_derivative_that_is_wrong_for_some_inputs_fails(error: float, large: bool) -> None:
    """It is right in the nominal scenario, where a = 1."""

    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        wrong = c["a"] > 1.5 if large else c["a"] < 0.6
        return cubed(u, error * wrong) - c["source"], c["a"] * grad

    found = nhgd.verify(problem(form))
    assert "scenarios: equation in the cells by u" in failures(found), str(found)
    assert all(name.startswith("scenarios: ") for name in failures(found))
    (check,) = [each for each in found.checks if each.name == "scenarios: equation in the cells by u"]
    assert "in scenario" in check.remark and "standard variables (" in check.remark


def test_a_second_derivative_that_is_wrong_for_some_inputs_fails() -> None:
    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return cubed_twice(u, 1e-5 * (c["a"] > 1.5)) - c["source"], c["a"] * grad

    found = nhgd.verify(problem(form))
    assert "scenarios: second derivatives of equation in the cells" in failures(found), str(found)


def test_a_control_map_that_is_wrong_for_some_inputs_fails() -> None:
    def enter(c: Any, v: Tensor) -> Any:
        return {**c, "source": c["source"] + v + 0.3 * cubed(v, 1e-5 * (c["a"] > 1.5))}

    found = nhgd.verify(problem(right, control={"kind": "python", "python": enter}))
    assert "scenarios: equation in the cells by the control" in failures(found), str(found)
    assert all(name.startswith("scenarios: ") for name in failures(found))


def test_a_scenario_with_a_small_velocity_has_its_own_control_matrix() -> None:
    """Its cell Peclet number is below one, so that it has no stabilisation, unlike the nominal scenario."""
    problem = nhgd.load(
        Path(__file__).parents[1] / "problems" / "uncertain_source.yaml", {"mesh.cells": [48, 24], "scenarios.count": 4}
    ).scenarios.problem
    slow = int(problem.z[:, 1].argmin())
    part = problem.part(torch.tensor([slow]))
    u, v = torch.zeros_like(part.start()[0]), torch.ones_like(part.start()[1])
    direct = part.integrated(u, v)
    assert (direct - problem.nominal.integrated(u, v)).norm() > 1e-3 * direct.norm()
    assert (direct - part.residual(u, v)).norm() <= 1e-13 * direct.norm()
