"""Incompressible flow in time: orders of velocity and pressure, divergence, a shipped problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from evolutions import l2_error, solved

import nhgd_pde as nhgd
from benchmarks.reference import orders
from nhgd_pde.building.blueprint import build
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem

FILE = Path(__file__).parents[1] / "problems" / "flow_in_time.yaml"
NU = 0.1
SIZE, LOAD = "exp(-t)", "cos(3*t)"
# A velocity and a pressure that the elements have exactly, so that all of the error is that of the steps.
VELOCITY = [f"y**2*{SIZE}", f"x**2*{SIZE}"]


def pressure(t: str, level: float) -> str:
    return f"(x + 2*y - {level})*cos(3*({t}))"


def carried(i: int) -> str:
    """u_t + (u . grad) u - NU lap u + grad p."""
    convection = (f"2*x**2*y*{SIZE}**2", f"2*x*y**2*{SIZE}**2")[i]
    return f"-{VELOCITY[i]} + {convection} - {2 * NU}*{SIZE} + {i + 1}*{LOAD}"


def flow(scheme: str, closed: bool, steps: int, kind: str = "navier_stokes") -> PDEProblem:
    boundary: dict[str, Any] = {"all": {"dirichlet": VELOCITY}}
    if not closed:
        # viscosity du/dn - p n at x = 1.
        traction = [f"-{pressure('t', 1.5).replace('x', '1')}", f"{NU}*2*{SIZE}"]
        boundary = {"right": {"neumann": traction}, **boundary}
    source = [carried(i) for i in range(2)]
    if kind == "stokes":
        source = [f"-{VELOCITY[i]} - {2 * NU}*{SIZE} + {i + 1}*{LOAD}" for i in range(2)]
    file = {
        "name": "flow",
        "mesh": {"kind": "rectangle", "cells": [2, 2]},
        "pde": {"kind": kind, "viscosity": NU, "source": source, "boundary": boundary},
        "time": {"end": 1, "steps": steps, "scheme": scheme, "initial": ["y**2", "x**2"]},
        "control": {"kind": "source"},
        "objective": [{"kind": "regularisation", "weight": 1}],
    }
    return build(read_problem(file))


def errors(scheme: str, closed: bool, steps: int, kind: str = "navier_stokes") -> tuple[float, float]:
    """The errors of velocity and pressure at the end; pressures belong to the time at which a step is evaluated."""
    built = flow(scheme, closed, steps, kind)
    last, first = solved(built)[-1], int(built.space.offsets[2])
    velocity, tension = last.clone(), last.clone()
    velocity[first:], tension[:first] = 0.0, 0.0
    at = 1.0 - (0.5 / steps if scheme == "crank_nicolson" else 0.0)
    # In a closed domain the pressure is zero at its first node, the corner at the origin.
    level = 0.0 if closed else 1.5
    nothing = "0*x"
    return (
        l2_error(built, velocity, [*VELOCITY, nothing], 1.0),
        l2_error(built, tension, [nothing, nothing, pressure(str(at), level)]),
    )


@pytest.mark.parametrize("kind", ["navier_stokes", "stokes"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1.0), ("crank_nicolson", 2.0)])
def test_velocity_and_pressure_have_the_order_of_the_scheme(scheme: str, order: float, closed: bool, kind: str) -> None:
    found = [errors(scheme, closed, steps, kind) for steps in (10, 20, 40)]
    velocity, tension = zip(*found, strict=True)
    assert velocity[0] > 1e-7
    assert orders(list(velocity))[-1] > order - 0.15
    assert orders(list(tension))[-1] > order - 0.15


def test_velocities_stay_free_of_divergence() -> None:
    """Also from an initial velocity that is not, whose divergence the first step removes."""
    built = build(read_problem(FILE, {"mesh.cells": [4, 4], "time.steps": 6, "time.initial": ["x*(1-x)*y*(1-y)", 0]}))
    levels, first = solved(built), int(built.space.offsets[2])
    cells = built.space.cells
    values = cells.evaluate(levels)
    divergence = values[1] + values[5]
    density = torch.zeros_like(values)
    density[6] = divergence
    tested = cells.test(density)[:, first:]
    assert float(tested[0].abs().max()) > 1e-3
    # One coefficient is that of the constant pressure, against which the flux through the boundary is tested.
    assert float(tested[1:].abs().max()) < 1e-9


def test_the_shipped_flow_is_turned_round() -> None:
    found = nhgd.solve(nhgd.load(FILE, {"mesh.cells": [4, 4], "time.steps": 4}))
    assert found.status == "converged"
    assert found.objective < 0.2 * found.stats["objective_initial"]


@pytest.mark.parametrize("scheme", ["implicit_euler", "crank_nicolson"])
def test_derivatives_are_right(scheme: str) -> None:
    small = {"mesh.cells": [2, 2], "time.steps": 3, "time.scheme": scheme}
    assert nhgd.verify(nhgd.load(FILE, small)).passed


def test_a_net_flux_into_a_closed_domain_is_refused() -> None:
    with pytest.raises(ProblemError, match="velocities are given all around"):
        nhgd.load(FILE, {"pde.boundary.top": {"dirichlet": [0, "-t"]}})
