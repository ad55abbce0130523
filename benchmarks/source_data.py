"""Measurements for problems/uncertain_source.yaml: python -m benchmarks.source_data.

Two sources in a wind that differs from the mean wind of the identification, on a mesh twice as fine as in the
identification; the noise is Gaussian with 2 % of the largest value as its standard deviation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nhgd_pde.building.blueprint import build
from nhgd_pde.fem.interpolation import at_points
from nhgd_pde.problem_file.loading import read_problem

CELLS, NOISE, SEED = (96, 48), 0.02, 0
ANGLE, SPEED = 0.12, 1.1
# (x, y, strength) of the sources, whose width is 0.1.
SOURCES = ((0.5, 0.3, 1.0), (0.9, 0.7, 0.6))
PATH = Path(__file__).parents[1] / "problems" / "data" / "uncertain_source_sensors.csv"


def true_source() -> str:
    """The source, as an expression."""
    return " + ".join(f"{strength}*exp(-((x-{x})**2+(y-{y})**2)/0.01)" for x, y, strength in SOURCES)


def table() -> np.ndarray:
    """(sensors, 4): x, y, value, weight; the weights make the sum of squares an integral."""
    problem = build(
        read_problem(
            {
                "name": "truth",
                "mesh": {"kind": "rectangle", "size": [2, 1], "cells": list(CELLS)},
                "pde": {
                    "kind": "advection_diffusion",
                    "conductivity": 0.02,
                    "velocity": [float(SPEED * np.cos(ANGLE)), float(SPEED * np.sin(ANGLE))],
                    "source": true_source(),
                    "boundary": {"left": {"dirichlet": 0}},
                },
                "control": {"kind": "source"},
                "objective": [{"kind": "tracking", "target": 0}],
            }
        )
    )
    u, v = problem.start()
    u = u - problem.state_factors(u, v).solve(problem.residual(u, v))
    state = problem.state(u, v)[0].numpy()
    points = np.stack(
        [axis.reshape(-1) for axis in np.meshgrid(np.arange(0.1, 2, 0.1), np.arange(0.1, 1, 0.1), indexing="ij")]
    )
    values = at_points(problem.space.parts[0], points) @ state
    noise = NOISE * np.abs(state).max() * np.random.default_rng(SEED).standard_normal(len(values))
    return np.column_stack([points.T, values + noise, np.full(len(values), 0.01)])


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    np.savetxt(PATH, table(), "%.5g", ",", header="x, y, value, weight; made by benchmarks/source_data.py")
