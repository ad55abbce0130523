"""The decrease of the errors of a sampled inverse and of its hypergradient with the number of scores.

`python -m benchmarks.sampling`: the residual form of poisson_control on 12 x 12 cells (121 unknowns), identity prior
without weight, 4 d to 400 d scores. The exit code is 1 if a slope differs from -1/2 by more than 0.1.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.hypergradient import hypergradient

SEEDS = 5


def main() -> int:
    options = {
        "mesh.cells": [12, 12],
        "inner.model": "residual",
        "objective.0.target": "exp(-20*((x-0.3)**2+(y-0.6)**2))",
    }
    problem = nhgd.load("problems/poisson_control.yaml", options).pde
    u, v = problem.start()
    v = v + 1.0
    u = u - problem.state_factors(u, v).solve(problem.residual(u, v))
    d = u.numel()
    columns = torch.eye(d, dtype=u.dtype)[:, None]
    fisher = torch.cat([problem.hessian_product(u, v, column) for column in columns])
    root = torch.linalg.cholesky(fisher)
    inner, outer = problem.outer_derivatives(u, v)
    indirect = problem.cross_product(u, v, torch.linalg.solve(fisher, inner[0])[None])
    exact = outer - indirect

    counts = [4 * d * 10 ** (k / 2) for k in range(5)]
    rows = []
    for count in counts:
        errors = []
        for seed in range(SEEDS):
            backend, generator = Dense("identity", 1e-6), torch.Generator().manual_seed(seed)
            state = backend.init(problem, u, v)
            for _ in range(round(count / 44)):
                state = backend.absorb(state, problem.batch(u, v, problem.sample(44, generator)).scores)
            # A F is computed in coordinates in which F is the identity.
            a = root.T @ torch.cat([state.estimate(column) for column in columns]) @ root
            found = hypergradient(problem, u, v, state, None, None)
            norm = problem.outer_metric.dual_norm
            errors.append(
                [
                    float((a - torch.eye(d, dtype=a.dtype)).norm() / d**0.5),
                    norm((found.derivative - exact)[None]) / norm(indirect[None]),
                ]
            )
        rows.append(np.sqrt(np.mean(np.square(errors), axis=0)))
    table = np.array(rows)
    slopes = [float(np.polyfit(np.log(counts), np.log(column), 1)[0]) for column in table.T]
    print("| | " + " | ".join(f"{count:,.0f} scores" for count in counts) + " | slope |")
    print("|---|" + "---|" * (len(counts) + 1))
    for name, column, slope in zip(("inverse", "hypergradient"), table.T, slopes, strict=True):
        print(f"| {name} | " + " | ".join(f"{error:.3f}" for error in column) + f" | {slope:.3f} |")
    return 0 if all(abs(slope + 0.5) <= 0.1 for slope in slopes) else 1


if __name__ == "__main__":
    sys.exit(main())
