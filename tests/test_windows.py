"""Controls that are constant on windows of time are exactly the controls of all steps with equal values in a window."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.pde.rows import ControlRows
from nhgd_pde.problem_file.errors import ProblemError

STEPS, WINDOWS = 12, 3
BASE: dict[str, Any] = {
    "name": "windows",
    "method": "adjoint",
    "mesh": {"kind": "interval", "cells": 8},
    "pde": {"kind": "burgers", "viscosity": 0.05, "boundary": {"all": {"dirichlet": 0}}},
    "time": {"end": 1, "steps": STEPS, "initial": "sin(pi*x)", "scheme": "crank_nicolson"},
    "control": {"kind": "source", "space": "time", "gain": "sin(2*pi*x)*exp(-t)"},
    "objective": [{"kind": "tracking", "target": "0.3*x*t"}, {"kind": "regularisation", "weight": 0.01}],
}
ON_LEFT = {"kind": "dirichlet", "on": "left", "space": "time"}
# The control, the values to change besides, and the columns of the control.
CASES = {
    "time": ({}, {}, 1),
    "P1": ({"space": "P1"}, {}, 9),
    "P0": ({"space": "P0"}, {"time.scheme": "implicit_euler"}, 8),
    "tv": ({"space": "P1"}, {"objective.1.norm": "tv", "objective.1.smoothing": 0.1}, 9),
    "h1": ({"space": "P1"}, {"objective.1.norm": "h1"}, 9),
    "dirichlet": (ON_LEFT, {"pde.boundary": {"right": {"dirichlet": 0}}, "time.initial": "1-x"}, 1),
}


def problems(case: str) -> tuple[Any, Any, int]:
    """The problem with windows, the one with a value in every step, and the columns of the control."""
    control, overrides, columns = CASES[case]
    data = copy.deepcopy(BASE)
    data["control"] = control if "kind" in control else {**data["control"], **control}
    return nhgd.load(data, {"control.windows": WINDOWS, **overrides}), nhgd.load(data, overrides), columns


def in_steps(v: np.ndarray, columns: int) -> np.ndarray:
    return v.reshape(WINDOWS, 1, columns).repeat(STEPS // WINDOWS, axis=1).reshape(-1)


@pytest.mark.parametrize("case", CASES)
def test_windows_are_equal_values_in_steps(case: str) -> None:
    windows, steps, columns = problems(case)
    v = np.random.default_rng(1).standard_normal(WINDOWS * columns)
    assert windows.outer_size == len(v)
    whole = in_steps(v, columns)
    assert windows.reduced.value(v) == pytest.approx(steps.reduced.value(whole), rel=1e-12)
    summed = steps.reduced.derivative(whole).reshape(WINDOWS, -1, columns).sum(1).reshape(-1)
    np.testing.assert_allclose(windows.reduced.derivative(v), summed, rtol=0, atol=1e-10 * np.abs(summed).max())


@pytest.mark.parametrize("case", ["time", "P1", "P0"])
def test_the_inner_product_is_that_of_the_steps(case: str) -> None:
    windows, steps, columns = problems(case)
    v = torch.from_numpy(np.random.default_rng(2).standard_normal(WINDOWS * columns))
    whole = torch.from_numpy(in_steps(v.numpy(), columns))
    assert windows.pde.outer_metric.norm(v[None]) == pytest.approx(steps.pde.outer_metric.norm(whole[None]), rel=1e-13)


def test_gathering_is_the_transpose_of_spreading() -> None:
    rows = ControlRows((2, 1, 3), (True, False, True), 12, (True, False, False), (3, 1, 12))
    assert rows.sizes == (6, 1, 36)
    generator = torch.Generator().manual_seed(0)
    v, w = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((43,), (12, 6)))
    assert float((rows.spread(v) * w).sum()) == pytest.approx(float(v @ rows.gather(w)), rel=1e-13)


def test_finer_windows_are_never_worse() -> None:
    found = [nhgd.solve(nhgd.load(BASE, {"control.windows": count})).objective for count in (1, 2, 4, 12)]
    assert all(b < a for a, b in pairwise(found))
    assert found[-1] == pytest.approx(nhgd.solve(nhgd.load(BASE)).objective, rel=1e-9)


def test_derivatives_are_verified() -> None:
    assert nhgd.verify(problems("dirichlet")[0]).passed


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"control.windows": 5}, "control.windows: expected a divisor of time.steps (12), such as 4, found 5"),
        ({"control.windows": 0}, "control.windows: expected a whole number of at least 1"),
        ({"control.windows": 3, "control.space": "constant"}, "a control that does not vary in time, found 3"),
    ],
)
def test_wrong_windows_are_named(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(words)):
        nhgd.load(BASE, overrides)
