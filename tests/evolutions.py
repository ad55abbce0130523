"""Small problems in time and their states, for several tests."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import skfem
import torch

from nhgd_pde.building.blueprint import build
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.loading import read_problem
from problems import state_of

LINE: dict[str, Any] = {
    "name": "small",
    "mesh": {"kind": "interval", "cells": [4]},
    "pde": {"kind": "heat", "boundary": {"all": {"dirichlet": 0}}},
    "time": {"end": 0.5, "steps": 3},
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "sin(pi*x)*exp(-t)"},
        {"kind": "regularisation", "weight": 1e-2},
    ],
}


def evolution(overrides: Mapping[str, Any] | None = None) -> PDEProblem:
    """Heat on four cells and three time steps, with some keys set to other values."""
    return build(read_problem(copy.deepcopy(LINE), overrides))


def solved(built: PDEProblem) -> torch.Tensor:
    """All coefficients of the state (levels, size of the space) at the first control."""
    return state_of(built).reshape(-1, built.space.size)


def l2_error(built: PDEProblem, values: torch.Tensor, exact: list[str], t: float = 0.0) -> float:
    """The error of coefficients (size of the space,), by a quadrature much finer than that of the equation."""
    square = 0.0
    for part, own, text in zip(built.space.parts, built.space.split(values.numpy()), exact, strict=True):
        basis = skfem.Basis(built.space.domain.mesh, part.basis.elem, intorder=8)
        x = np.asarray(basis.global_coordinates())
        expression = Expression(text)
        named = {"t": t} if "t" in expression.variables else {}
        square += float(((np.asarray(basis.interpolate(own)) - expression.numpy(x, **named)) ** 2 * basis.dx).sum())
    return math.sqrt(square)
