"""Control of heat against exact optima: `python -m benchmarks.evolution`, which takes some two minutes."""

from __future__ import annotations

import numpy as np

import nhgd_pde as nhgd
from benchmarks.reference import MPDIST2, extrapolated, mpdist2, orders

# The optimum of `problems/heat_initial.yaml`: the objective, and the control as a multiple of sin(pi x) sin(pi y).
INITIAL = (0.00615875711690, 6.844159438880)


def distributed() -> None:
    """Objectives for mesh sizes and time steps that are halved together."""
    for (dim, beta), exact in MPDIST2.items():
        sizes = {1: (8, 16, 32, 64, 128), 2: (4, 8, 16, 32, 64)}[dim]
        solutions = [nhgd.solve(nhgd.load(mpdist2(dim, beta, n))) for n in sizes]
        values = [solution.objective for solution in solutions]
        counts = [solution.stats["outer_iterations"] for solution in solutions]
        limit = extrapolated(values, (2, 4, 6, 8))
        order = orders([abs(value - exact) for value in values])[-1]
        print(f"mpdist2, d = {dim}, beta = {beta}: n = {sizes}: {', '.join(f'{value:.6f}' for value in values)}")
        print(f"  order {order:.2f}, extrapolated {limit:.10f}, exact {exact}, iterations {counts}")


def initial() -> None:
    """Objectives with P2 and the implicit Euler method, extrapolated in time on each mesh, then over the meshes."""
    found = []
    for n in (4, 8, 16):
        values = []
        for steps in (16, 32, 64, 128, 256):
            overrides = {"element": "P2", "mesh.cells": [n, n], "time.steps": steps, "outer.rtol": 1e-10}
            solution = nhgd.solve(nhgd.load("problems/heat_initial.yaml", overrides))
            phi = np.prod(np.sin(np.pi * solution.problem.control.parts[0].nodes), axis=0)
            values.append((solution.objective, float(solution.control @ phi / (phi @ phi))))
        found.append([extrapolated(list(each), (1, 2, 3, 4)) for each in zip(*values, strict=True)])
    objective, coefficient = zip(*found, strict=True)
    limits = extrapolated(list(objective), (4, 6)), extrapolated(list(coefficient), (2, 4))
    print(f"heat_initial: objective {limits[0]:.12f}, coefficient {limits[1]:.6f}; exact {INITIAL}")


if __name__ == "__main__":
    distributed()
    initial()
