"""Measurements for problems/heat_inversion.yaml: python -m benchmarks.heat_inversion_data.

The temperatures come from a mesh twice as fine along each axis and from a quarter of the time step; the noise is
Gaussian with 0.2 % of the largest temperature as its standard deviation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import nhgd_pde as nhgd
from nhgd_pde.fem.interpolation import at_points

PROBLEM = Path(__file__).parents[1] / "problems" / "heat_inversion.yaml"
PATH = PROBLEM.parent / "data" / "heat_thermometers.csv"
TRUTH = {"k_core": 0.2, "k_plate": 1.0}
FINER = {"mesh.cells": [48, 48], "time.steps": 200}
NOISE, SEED = 0.002, 0
# The thermometers stand on a grid, and are read twenty times.
LINE = np.array([0.15, 0.38, 0.5, 0.62, 0.85])
TIMES = np.arange(1, 21) / 20


def table() -> np.ndarray:
    """(measurements, 4): x, y, t, value."""
    known = {"pde.conductivity": {"core": TRUTH["k_core"], "default": TRUTH["k_plate"]}}
    # With a tiny source as its only control, the problem is a simulation.
    alone = {"control": {"kind": "source", "space": "constant"}, "objective": [{"kind": "tracking", "target": 0}]}
    problem = nhgd.load(PROBLEM, FINER | known | alone)
    u, v = problem.pde.start()
    u = u - problem.pde.state_factors(u, v).solve(problem.pde.residual(u, v))
    levels = problem.pde.state(u, v)[0].numpy().reshape(FINER["time.steps"] + 1, -1)
    points = np.stack([axis.reshape(-1) for axis in np.meshgrid(LINE, LINE, indexing="ij")])
    chosen = np.round(TIMES * FINER["time.steps"]).astype(int)
    values = (at_points(problem.pde.space.parts[0], points) @ levels[chosen].T).T
    noise = NOISE * np.abs(levels).max() * np.random.default_rng(SEED).standard_normal(values.shape)
    times = np.repeat(TIMES, points.shape[1])
    return np.column_stack([np.tile(points, len(TIMES)).T, times, (values + noise).reshape(-1)])


if __name__ == "__main__":
    header = "made by benchmarks/heat_inversion_data.py\nx, y, t, temperature"
    np.savetxt(PATH, table(), "%.5g", ",", header=header)
    PATH.write_text(PATH.read_text().replace("# x, y", "x, y"))
