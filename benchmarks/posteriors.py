"""The figures of docs/posterior.md: python -m benchmarks.posteriors [spectrum | prior | coverage | chain]...

`coverage` solves 300 problems and `chain` some thousands of equations: minutes each.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nhgd_pde as nhgd

PROBLEM = Path(__file__).parents[1] / "problems" / "inversion_posterior.yaml"


def spectrum() -> None:
    """Eigenvalues, information gain and work of the shipped problem on four meshes."""
    for cells in (16, 32, 64, 128):
        solution = nhgd.solve(nhgd.load(PROBLEM, {"mesh.cells": [cells, cells]}))
        posterior = solution.posterior()
        values = ", ".join(f"{value:.5g}" for value in posterior.eigenvalues[[0, 1, 4, 9, 19]])
        print(
            f"{cells}: {posterior.prior.size} unknowns, {values}; {len(posterior.eigenvalues)} kept, "
            f"gain {posterior.information_gain:.5g}, {solution.stats['outer_iterations']} iterations, "
            f"{posterior.spectrum.products} products"
        )


def prior() -> None:
    """Variance of the prior in the middle, at a side and in a corner, over std^2, on three meshes."""
    for boundary in ("robin", "neumann"):
        for cells in (16, 32, 64):
            changes = {"mesh.cells": [cells, cells], "inference.prior.boundary": boundary}
            part = nhgd.load(PROBLEM, changes).pde.control.parts[0]
            own: Any = part.prior
            found = []
            for point in ([0.5, 0.5], [0.0, 0.5], [0.0, 0.0]):
                unit = torch.zeros(1, part.size, dtype=torch.float64)
                node = int(np.argmin(((part.nodes.T - point) ** 2).sum(axis=1)))
                unit[0, node] = 1.0
                found.append(float(own.covariance(unit)[0, node]) / 0.8**2)
            print(boundary, cells, " ".join(f"{value:.3f}" for value in found))


def coverage(runs: int = 100) -> None:
    """How often intervals of 95 % contain the truth: three predictions of the shipped problem and of a linear one."""
    rng = np.random.default_rng(7)
    for control in ({"kind": "log_conductivity", "name": "m"}, {"kind": "source", "name": "m"}):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "gauges.csv"
            points = np.loadtxt(PROBLEM.parent / "data" / "posterior_gauges.csv", delimiter=",")[:, :2]
            np.savetxt(file, np.column_stack([points, np.zeros(len(points))]), delimiter=",")
            changes = {"mesh.cells": [12, 12], "control": control, "objective.0.at": str(file)}
            problem = nhgd.load(PROBLEM, changes)
            phi, pde = nhgd.reduced(problem), problem.pde
            own: Any = pde.control.parts[0].prior
            inside, ended = np.zeros(3), 0
            for _ in range(runs):
                white = torch.from_numpy(rng.standard_normal((1, pde.outer_size)))
                truth = own.mean + own.coloured(white)[0]
                state = torch.from_numpy(phi.state(truth.numpy()))
                values = pde.sensors[0].rows.mv(state)[0].numpy()
                noisy = values + 0.01 * rng.standard_normal(len(values))
                np.savetxt(file, np.column_stack([points, noisy]), delimiter=",", fmt="%.17g")
                solution = nhgd.solve(nhgd.load(PROBLEM, changes))
                if solution.status != "converged":
                    continue
                ended += 1
                wanted = [each.value(state, truth) for each in pde.predictions]
                found = solution.posterior().predicted()
                inside += [each.low <= value <= each.high for value, each in zip(wanted, found, strict=True)]
            print(control["kind"], f"{ended} of {runs} runs converged; inside:", inside.astype(int).tolist())


def chain(states: int = 3000) -> None:
    """The shipped problem by the normal approximation with both Hessians, and by a chain."""
    solution = nhgd.solve(nhgd.load(PROBLEM))
    full = nhgd.solve(nhgd.load(PROBLEM, {"inference.hessian": "full"})).posterior()
    posterior = solution.posterior()
    for name, found in (("gauss_newton", posterior.predicted()), ("full", full.predicted())):
        print(name, [(each.name, round(each.value, 4), round(each.std, 4)) for each in found])
    made = posterior.chain(states, every=10)
    print(f"chain: step {made.step:.3g}, accepted {made.accepted:.2f}, effective {made.effective:.0f}")
    print([(each.name, round(each.value, 4), round(each.std, 4)) for each in made.intervals()])


if __name__ == "__main__":
    for name in sys.argv[1:] or ["spectrum", "prior"]:
        {"spectrum": spectrum, "prior": prior, "coverage": coverage, "chain": chain}[name]()
