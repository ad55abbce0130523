"""Controls of every kind, as changes of the small Poisson problem of `problems`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

import nhgd_pde as nhgd
from nhgd_pde.pde_problem import PDEProblem
from problems import BASE

LEFT = {"left": {"dirichlet": 0}}
FLUX = {"pde.boundary": LEFT, "control": {"kind": "neumann", "on": "right"}}
EXCHANGE = {
    "pde.boundary": {**LEFT, "right": {"robin": {"coefficient": "1 + y", "value": 1}}},
    "control": {"kind": "robin", "on": "right"},
}
WALL = {"control": {"kind": "dirichlet", "on": "top"}}
CONDUCTIVITY = {"control": {"kind": "conductivity", "initial": 1, "bounds": [0.3, 3]}}
LOG = {"control": {"kind": "log_conductivity"}}
NUMBER = {
    "pde.conductivity": "1 + a*x",
    "pde.source": "1 + a*y",
    "control": {"kind": "parameter", "name": "a", "bounds": [-0.5, 2]},
}
LINE = {"mesh": {"kind": "interval", "cells": [8]}, "pde.source": 1, "objective.0.target": "x"}
BOX = {"mesh": {"kind": "box", "cells": [2, 2, 3]}}
QUADS = {"mesh.cell": "quadrilateral"}
DISK = {"mesh": {"kind": "disk", "refine": 2}}
SEMILINEAR = {"pde.kind": "semilinear", "pde.nonlinearity": "u**3"}
MIXED: dict[str, Any] = {
    "pde.boundary": {**LEFT, "right": {"robin": {"coefficient": 2, "value": 0}}},
    "pde.source": "1 + a*x",
    "pde.conductivity": "1 + 0.5*a",
    "control": [
        {"kind": "source", "name": "f", "bounds": [None, 4]},
        {"kind": "parameter", "name": "a", "initial": 0.5, "bounds": [0, 1]},
        {"kind": "neumann", "on": "top"},
        {"kind": "robin", "on": "right", "space": "constant"},
        {"kind": "dirichlet", "on": "bottom"},
    ],
    "objective": [
        {"kind": "tracking", "target": "sin(pi*x)*y"},
        {"kind": "regularisation", "weight": 1e-2, "control": "f"},
        {"kind": "regularisation", "weight": 3e-2, "reference": 0.4, "control": "a"},
        {"kind": "regularisation", "weight": 1e-2, "norm": "h1", "control": "neumann"},
        {"kind": "regularisation", "weight": 1e-2, "control": "robin"},
        {"kind": "regularisation", "weight": 2e-2, "control": "dirichlet"},
    ],
}


def loaded(overrides: dict[str, Any]) -> nhgd.Problem:
    """Poisson control with some keys set to other values, ready to be solved."""
    return nhgd.load(copy.deepcopy(BASE), overrides)


def solved(pde: PDEProblem, v: torch.Tensor) -> np.ndarray:
    """All coefficients of the state at v, of an equation that is linear in it."""
    u, _ = pde.start()
    for _ in range(2):
        u = u - pde.state_factors(u, v).solve(pde.residual(u, v))
    return pde.state(u, v)[0].numpy()
