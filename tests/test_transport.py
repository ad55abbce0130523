"""Advection and diffusion in time: orders, stabilisation, a known optimum."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evolutions import l2_error, solved

import nhgd_pde as nhgd
from benchmarks.reference import orders
from nhgd_pde.building.blueprint import build
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem

FILE = Path(__file__).parents[1] / "problems" / "transport_control.yaml"
K, A, ALPHA = 0.01, 0.05, 0.01
OBJECTIVE = A**2 / 8 * (1 + 8 * math.pi**2 * K + 64 * math.pi**4 * K**2 / 3 + 4 * math.pi**2 / 3 + 1 / (3 * ALPHA))
STATE, ALONG = "exp(-t)*sin(2*x+y)", "exp(-t)*cos(2*x+y)"


def transport(conductivity: float, **others: Any) -> dict[str, Any]:
    """A manufactured state in a flow that depends on time."""
    carried = f"(1+t)*2*{ALONG} + (y-1)*{ALONG}"
    return {
        "name": "carried",
        "mesh": {"kind": "rectangle", "cells": [8, 8]},
        "pde": {
            "kind": "advection_diffusion",
            "conductivity": conductivity,
            "velocity": ["1+t", "y-1"],
            "reaction": "x",
            "source": f"-{STATE} + {5 * conductivity}*{STATE} + {carried} + x*{STATE}",
            "boundary": {"all": {"dirichlet": STATE}},
            **others,
        },
        "time": {"end": 1, "steps": 8, "scheme": "crank_nicolson", "initial": "sin(2*x+y)"},
        "control": {"kind": "source"},
        "objective": [{"kind": "regularisation", "weight": 1}],
    }


def error(file: dict[str, Any], **overrides: Any) -> float:
    built = build(read_problem(file, {key.replace("__", "."): value for key, value in overrides.items()}))
    return l2_error(built, solved(built)[-1], [STATE], 1.0)


@pytest.mark.parametrize("stabilisation", ["none", "auto", "supg"])
@pytest.mark.parametrize("conductivity", [1.0, 1e-3])
def test_states_have_order_two_with_every_stabilisation(stabilisation: str, conductivity: float) -> None:
    file = transport(conductivity, stabilisation=stabilisation)
    errors = [error(file, mesh__cells=[n, n], time__steps=n) for n in (8, 16, 32)]
    assert min(orders(errors)) > 1.9


@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1.0), ("crank_nicolson", 2.0)])
def test_upwinding_keeps_the_order_in_time(scheme: str, order: float) -> None:
    """With fine enough elements all of the error is that of the steps, unless u_t is not tested as the rest is."""
    file = transport(1e-3, stabilisation="supg")
    steps = (10, 20, 40) if scheme == "implicit_euler" else (3, 6, 12)
    errors = [error(file, element="P2", mesh__cells=[12, 12], time__steps=n, time__scheme=scheme) for n in steps]
    assert min(orders(errors)) > order - 0.05


def test_upwinding_removes_oscillations() -> None:
    """A front from the inflow side has reached the outflow, where a layer cannot be resolved."""
    boundary = {"left": {"dirichlet": 0}, "right": {"dirichlet": 0}}
    file = transport(1e-4, velocity=[1, 0], reaction=0, source=1, boundary=boundary)
    overshoots = []
    for stabilisation in ("none", "supg"):
        built = build(
            read_problem(
                file,
                {
                    "pde.stabilisation": stabilisation,
                    "time.initial": 0,
                    "time.end": 2,
                    "time.steps": 40,
                    "time.scheme": "implicit_euler",
                    "mesh.cells": [16, 2],
                },
            )
        )
        # The state is at most min(x, t), less than 1.
        overshoots.append(float(np.abs(solved(built).numpy()).max()) - 1.0)
    assert overshoots[0] > 1.0 and overshoots[1] < 0.2


def test_the_control_has_the_known_optimum() -> None:
    values = []
    for n in (8, 16, 32):
        found = nhgd.solve(nhgd.load(FILE, {"mesh.cells": [n, n], "time.steps": n, "outer.rtol": 1e-6}))
        assert found.status == "converged"
        values.append(found.objective)
    assert orders([abs(value - OBJECTIVE) for value in values])[-1] > 1.8
    assert values[-1] == pytest.approx(OBJECTIVE, rel=0.02)


def test_stabilisation_in_time_is_refused_beside_controls_that_change_it() -> None:
    overrides = {"control": {"kind": "parameter", "name": "k", "initial": 0.01}, "pde.conductivity": "k"}
    with pytest.raises(ProblemError, match=r"pde\.stabilisation: expected none, found stabilisation in time"):
        nhgd.load(FILE, overrides)
    assert nhgd.verify(nhgd.load(FILE, {**overrides, "pde.stabilisation": "none", "mesh.cells": [4, 4]})).passed


def test_derivatives_are_right_with_upwinding() -> None:
    assert nhgd.verify(nhgd.load(FILE, {"mesh.cells": [4, 4], "time.steps": 3, "pde.stabilisation": "supg"})).passed
