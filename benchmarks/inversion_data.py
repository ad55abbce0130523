"""Measurements for problems/log_conductivity_inversion.yaml: python -m benchmarks.inversion_data.

The truth is that of hIPPYlib's second tutorial, exp(m) = 2 + 7 [distance from the centre > 0.2], on a mesh twice as
fine as that of the inversion; the noise is Gaussian with 5 % of the largest value as its standard deviation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nhgd_pde.building.blueprint import build
from nhgd_pde.fem.interpolation import at_points
from nhgd_pde.problem_file.loading import read_problem

CELLS, SENSORS, NOISE, SEED = 128, 31, 0.05, 0
PATH = Path(__file__).parents[1] / "problems" / "data" / "log_conductivity_sensors.csv"


def table() -> np.ndarray:
    """(sensors, 4): x, y, value, weight; the weights make the sum of squares an integral."""
    problem = build(
        read_problem(
            {
                "name": "truth",
                "mesh": {"kind": "rectangle", "cells": [CELLS, CELLS]},
                "pde": {
                    "kind": "poisson",
                    "conductivity": "2 + 7*((x - 0.5)**2 + (y - 0.5)**2 > 0.04)",
                    "source": 1,
                    "boundary": {"all": {"dirichlet": 0}},
                },
                "control": {"kind": "source"},
                "objective": [{"kind": "tracking", "target": 0}],
            }
        )
    )
    u, v = problem.start()
    u = u - problem.state_factors(u, v).solve(problem.residual(u, v))
    state = problem.state(u, v)[0].numpy()
    line = np.arange(1, SENSORS + 1) / (SENSORS + 1)
    points = np.stack([axis.reshape(-1) for axis in np.meshgrid(line, line, indexing="ij")])
    values = at_points(problem.space.parts[0], points) @ state
    noise = NOISE * np.abs(state).max() * np.random.default_rng(SEED).standard_normal(len(values))
    return np.column_stack([points.T, values + noise, np.full(len(values), (SENSORS + 1.0) ** -2)])


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    np.savetxt(PATH, table(), "%.5g", ",", header="x, y, value, weight; made by benchmarks/inversion_data.py")
