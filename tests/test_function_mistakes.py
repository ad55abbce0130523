"""Mistakes in Python functions of the user: each is reported with the function and the place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_verification import cubed, failures, problem
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.problem_file.errors import ProblemError


def single_form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> Any:
    return (u**3 - c["source"]).float(), grad


def cast_form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> Any:
    return (u**3).float().double() - c["source"], grad


def complex_form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> Any:
    return u.to(torch.complex128) ** 3 - c["source"], grad


def moved_form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> Any:
    x *= 2.0
    return u**3 - c["source"], grad


def frozen_form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> Any:
    with torch.no_grad():
        square = u**2
    return u * square - c["source"], grad


def half_frozen_form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> Any:
    return u**3 - c["source"], torch.stack([grad[0], grad[1].detach()])


def item_form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> Any:
    return u**3 * u.detach().mean().item() - c["source"], grad


FORMS = {
    single_form: "f0 has numbers of type float32; expected float64",
    cast_form: "numbers of single precision",
    complex_form: "f0 has numbers of type complex128; expected float64",
    moved_form: "changes x, which it is given, in place",
    frozen_form: "its derivative is not that of its values, as a change of u shows",
    half_frozen_form: "its derivative is not that of its values",
    item_form: "its derivative is not that of its values",
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_mistake_in_a_form_is_reported(form: Callable[..., Any]) -> None:
    with pytest.raises(ProblemError) as caught:
        problem(form)
    assert FORMS[form] in str(caught.value) and form.__name__ in str(caught.value)


def single_density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Any:
    return u.float() ** 2


def moved_density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Any:
    x *= 2.0
    return u**2


def number_density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Any:
    return 1.0


def numpy_density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Any:
    return np.ones(u.shape)


def bool_density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Any:
    return u > 0.0


def short_density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Any:
    return (u**2)[:, :5]


DENSITIES = {
    single_density: "returned numbers of type float32; expected float64",
    moved_density: "changes x, which it is given, in place",
    number_density: "the result is a float; expected a torch tensor",
    numpy_density: "the result is a ndarray; expected a torch tensor",
    bool_density: "returned numbers of type bool; expected float64",
    short_density: "expected a density of shape",
}


@pytest.mark.parametrize("density", DENSITIES, ids=lambda density: density.__name__)
def test_a_mistake_in_a_density_is_reported(density: Callable[..., Any]) -> None:
    with pytest.raises(ProblemError) as caught:
        problem(density=density)
    assert DENSITIES[density] in str(caught.value) and density.__name__ in str(caught.value)


@pytest.mark.parametrize("component", [0, 1])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_component_of_a_control_without_a_derivative_is_reported(component: int, at_once: bool) -> None:
    """The control acts in one component of the equation, or in the sum of both."""

    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> Any:
        parts = [c["source"][0], c["source"][1]]
        parts[component] = parts[component].detach()
        source = torch.stack([parts[0] + parts[1], 0.0 * parts[0]] if at_once else parts)
        return u - source, grad

    with pytest.raises(ProblemError, match="its derivative is not that of its values"):
        nhgd.load(
            {
                "name": "two",
                "mesh": {"kind": "rectangle", "cells": [4, 4]},
                "pde": {"python": form, "components": 2, "source": [0, 0], "boundary": {"all": {"dirichlet": [0, 0]}}},
                "control": {"kind": "source"},
                "objective": [{"kind": "tracking", "target": ["x", "y"]}, {"kind": "regularisation", "weight": 1e-3}],
            }
        )


def test_a_coefficient_that_is_not_a_tensor_is_reported() -> None:
    def enter(c: Any, v: Tensor) -> Any:
        return {**c, "source": 1.0}

    with pytest.raises(ProblemError, match=r"c\['source'\] is a float in the result; expected a torch tensor"):
        problem(enter=enter)


def test_a_density_that_is_nan_at_a_point_is_reported_with_the_place() -> None:
    def density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Tensor:
        return torch.where(x[0] > 0.7, torch.sqrt(-1.0 - u**2), u**2)

    found = nhgd.verify(problem(density=density))
    assert not found.passed
    assert "density: its values are not finite at" in str(found)
    assert "as at (0." in str(found)


def test_a_derivative_that_is_nan_is_reported_with_the_place() -> None:
    """Values are right, but the branch that is not taken has the derivative NaN."""

    def density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Tensor:
        return torch.where(u > -1e9, u**2, torch.sqrt(u - 1e9))

    found = nhgd.verify(problem(density=density))
    assert not found.passed
    assert "density: its derivatives are not finite at 1e+02 % of the points" in str(found)


@pytest.mark.parametrize("step", [1, 3])
def test_an_error_at_one_time_is_reported_with_the_time(step: int) -> None:
    calls = {}

    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        calls["shape"] = u.shape
        # The time is a coefficient in c.
        wrong = (c["t"] > (step - 0.5) / 4.0) & (c["t"] < (step + 0.5) / 4.0)
        return cubed(u, 1e-5 * wrong) - c["source"], grad

    content = {
        "name": "times",
        "mesh": {"kind": "interval", "cells": [8]},
        "time": {"end": 1.0, "steps": 4, "initial": "sin(pi*x)"},
        "pde": {"python": form, "source": "4*x", "coefficients": {"t": "t"}, "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": "x"}, {"kind": "regularisation", "weight": 1e-3}],
    }
    found = nhgd.verify(nhgd.load(content))
    assert "equation in the cells by u" in failures(found), str(found)
    assert f"in time step {step} of 4" in str(found), str(found)
