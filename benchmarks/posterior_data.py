"""Measurements for problems/inversion_posterior.yaml: python -m benchmarks.posterior_data.

The truth is a conductivity exp(m) with a bump and a hollow, on a mesh twice as fine as that of the inversion; the noise
is normal with the standard deviation of the problem file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nhgd_pde.building.blueprint import build
from nhgd_pde.fem.interpolation import at_points
from nhgd_pde.problem_file.loading import read_problem

PROBLEM = Path(__file__).parents[1] / "problems" / "inversion_posterior.yaml"
PATH = PROBLEM.parent / "data" / "posterior_gauges.csv"
CELLS, SENSORS, NOISE, SEED = 64, 7, 0.01, 0
TRUTH = "1.2*exp(-((x - 0.3)**2 + (y - 0.6)**2)/0.03) - exp(-((x - 0.7)**2 + (y - 0.35)**2)/0.04)"


def table() -> np.ndarray:
    """(sensors, 3): x, y, value."""
    problem = build(
        read_problem(
            {
                "name": "truth",
                "mesh": {"kind": "rectangle", "cells": [CELLS, CELLS]},
                "pde": {
                    "kind": "poisson",
                    "conductivity": f"exp({TRUTH})",
                    "source": 4,
                    "boundary": {"bottom": {"dirichlet": 0}, "top": {"dirichlet": 1}},
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
    return np.column_stack([points.T, values + NOISE * np.random.default_rng(SEED).standard_normal(len(values))])


if __name__ == "__main__":
    np.savetxt(PATH, table(), "%.5g", ",", header="x, y, head; made by benchmarks/posterior_data.py")
