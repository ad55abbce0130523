"""Problems with known answers, as mappings for `nhgd_pde.load`."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import skfem

import nhgd_pde as nhgd


def poisson_control(cells: int | None, target: str, alpha: float, mesh: dict[str, Any] | None = None) -> dict[str, Any]:
    """-lap u = v on the unit square (or another mesh), u = 0 on the boundary, tracking of a target."""
    return {
        "name": "poisson_control",
        "mesh": mesh or {"kind": "rectangle", "cells": [cells, cells]},
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [
            {"kind": "tracking", "target": target},
            {"kind": "regularisation", "norm": "l2", "weight": alpha},
        ],
    }


def spectral_optimum(amplitude: float, eigenvalue: float, alpha: float, squared_norm: float) -> tuple[float, float]:
    """Optimal control amplitude and objective for the target amplitude * phi, A phi = eigenvalue phi.

    u* = d lambda / (1 + alpha lambda^2) phi, J* = d^2 alpha lambda^2 |phi|^2 / (2 (1 + alpha lambda^2)).
    """
    damped = 1.0 + alpha * eigenvalue**2
    control = amplitude * eigenvalue / damped
    return control, amplitude**2 * alpha * eigenvalue**2 * squared_norm / (2.0 * damped)


ALPHA = 1e-6

# The example problem of dolfin-adjoint: d = sin sin / (2 pi^2).
MOTHER_TARGET = "sin(pi*x)*sin(pi*y)/(2*pi**2)"
MOTHER_CONTROL, MOTHER_OBJECTIVE = spectral_optimum(1.0 / (2.0 * math.pi**2), 2.0 * math.pi**2, ALPHA, 0.25)

# The second eigenfunction of the Laplacian, as in the cashocs demo.
SPECTRAL_TARGET = "sin(2*pi*x)*sin(2*pi*y)"
SPECTRAL_CONTROL, SPECTRAL_OBJECTIVE = spectral_optimum(1.0, 8.0 * math.pi**2, ALPHA, 0.25)


# Optimal objectives of problem mpdist2 of OPTPDE (distributed control of heat), by dimension and weight.
MPDIST2 = {(1, 0.05): 21.4409103853, (1, 0.01): 71.1223346834, (2, 0.05): 36.4257981435, (2, 0.01): 86.1072224416}


def mpdist2(dim: int, beta: float, n: int) -> dict[str, Any]:
    """Problem mpdist2 with n cells along each axis and n steps of the method of Crank and Nicolson."""
    rate, shape = f"({dim}*pi**2/4)", "*".join(f"cos(pi*{axis}/2)" for axis in "xy"[:dim])
    target = f"(({rate} + 1/({rate}*{beta}))*e + (1 - {rate} - 1/((1 + {rate})*{beta}))*exp(t))*{shape}"
    start = f"(e/({rate}*{beta}) - 1/((1 + {rate})*{beta}))*{shape}"
    return {
        "name": "mpdist2",
        "mesh": {
            "kind": ("interval", "rectangle")[dim - 1],
            "size": [2] * dim,
            "origin": [-1] * dim,
            "cells": [n] * dim,
        },
        "pde": {"kind": "heat", "boundary": {"all": {"dirichlet": 0}}},
        "time": {"end": 1, "steps": n, "scheme": "crank_nicolson", "initial": start},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": target}, {"kind": "regularisation", "weight": beta}],
        "outer": {"rtol": 1e-10},
    }


def extrapolated(values: list[float], powers: tuple[int, ...]) -> float:
    """Richardson's extrapolation of values for halved steps, with errors in the given powers of the step."""
    for power in powers[: len(values) - 1]:
        values = [after + (after - before) / (2**power - 1) for before, after in itertools.pairwise(values)]
    return values[-1]


def control_error(solution: nhgd.Solution, exact: Any) -> float:
    """L2 error of a control against a function of points (dim, ...), by the quadrature of the problem."""
    import torch

    cells = solution.problem.control.parts[0].evaluation
    values = cells.evaluate(torch.from_numpy(solution.control)[None])[0, 0].numpy()
    x = cells.quadrature.x.reshape(cells.quadrature.x.shape[0], -1).numpy()
    weights = cells.quadrature.weights.reshape(-1).numpy()
    return float(np.sqrt((weights * (values - exact(x)) ** 2).sum()))


def orders(errors: list[float]) -> list[float]:
    """Observed orders of convergence if the mesh size is halved from entry to entry."""
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def locally_refined() -> tuple[skfem.MeshTri, float]:
    """The unit square in 32 x 32 cells, bisected four times about (0.3, 0.6); and its ratio of cell areas."""
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, 1, 33), np.linspace(0, 1, 33))
    for level in range(4):
        centres = mesh.p[:, mesh.t].mean(axis=1)
        mesh = mesh.refined(np.flatnonzero(np.hypot(centres[0] - 0.3, centres[1] - 0.6) < 0.3 * 0.5**level))
    edges = mesh.p[:, mesh.t[1:]] - mesh.p[:, mesh.t[:1]]
    areas = np.abs(np.linalg.det(np.moveaxis(edges, 2, 0)))
    return mesh, float(areas.max() / areas.min())
