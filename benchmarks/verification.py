"""The figures of docs/verification.md: every table there is printed by this script.

python benchmarks/verification.py [SECTION ...]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import meshio
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nhgd_pde as nhgd
from benchmarks.quasilinear import quasilinear_problem
from benchmarks.reference import (
    ALPHA,
    MOTHER_CONTROL,
    MOTHER_OBJECTIVE,
    MOTHER_TARGET,
    SPECTRAL_CONTROL,
    SPECTRAL_OBJECTIVE,
    SPECTRAL_TARGET,
    control_error,
    locally_refined,
    orders,
    poisson_control,
)
from benchmarks.shipped import PROBLEMS
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.verification import verify_problem


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    names = list(header)
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(entry) for entry in row) + " |", flush=True)
    print()


def derivatives() -> None:
    """`verify` on the shipped problems and on a nonlinear one."""
    for path in PROBLEMS:
        print(nhgd.verify(nhgd.load(path)), "\n")
    print(verify_problem(quasilinear_problem(16)), "\n")


def fisher() -> None:
    """Relative errors of sampled Fisher information, which is J^T K^-1 J (residual form) or J (energy form)."""
    counts = [100 * 4**k for k in range(5)]
    rows = []
    for model in ("residual", "energy"):
        overrides = {"inner.model": model, "mesh.cells": [12, 12]}
        pde = nhgd.load("problems/poisson_control.yaml", overrides).pde
        u, v = pde.start()
        n = u.shape[1]
        exact = torch.cat([pde.hessian_product(u, v, row[None]) for row in torch.eye(n, dtype=u.dtype)])
        errors = []
        for count in counts:
            squares = []
            for seed in range(5):
                scores = pde.batch(u, v, pde.sample(count, torch.Generator().manual_seed(seed))).scores
                squares.append(float((scores @ scores.T / count - exact).norm() / exact.norm()) ** 2)
            errors.append(math.sqrt(sum(squares) / len(squares)))
        slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
        rows.append([model, *[f"{error:.3f}" for error in errors], f"{slope:.3f}"])
    table(["form", *[f"{count:,} scores" for count in counts], "slope"], rows)


def dense() -> None:
    """The dense inverse after batches of Woodbury updates, compared with the inverse of the directly summed F."""
    pde = nhgd.load("problems/poisson_control.yaml", {"inner.model": "residual", "mesh.cells": [16, 16]}).pde
    u, v = pde.start()
    generator = torch.Generator().manual_seed(0)
    rows = []
    for prior in ("riesz", "identity"):
        curvature = Dense(prior)  # type: ignore[arg-type]
        state = curvature.init(pde, u, v)
        weight = state.prior_weight
        total = weight * torch.linalg.inv(state.inverse)
        for batches in range(1, 101):
            scores = pde.batch(u, v, pde.sample(32, generator)).scores
            state = curvature.absorb(state, scores)
            total += scores @ scores.T
            if batches in (1, 10, 100):
                direct = torch.linalg.inv(total / (weight + 32 * batches))
                rows.append([prior, batches, f"{float((state.inverse - direct).norm() / direct.norm()):.1e}"])
    table(["prior", "batches of 32", "relative difference"], rows)


def reference() -> None:
    """The mother problem and the spectral family."""
    for name, target, amplitude, exact, k in (
        ("mother", MOTHER_TARGET, MOTHER_CONTROL, MOTHER_OBJECTIVE, 1),
        ("spectral", SPECTRAL_TARGET, SPECTRAL_CONTROL, SPECTRAL_OBJECTIVE, 2),
    ):
        sizes = (32, 64, 128, 256)
        solutions = [nhgd.solve(nhgd.load(poisson_control(n, target, ALPHA))) for n in sizes]
        errors = [abs(s.objective - exact) / exact for s in solutions]

        def control(x: np.ndarray, amplitude: float = amplitude, k: int = k) -> np.ndarray:
            return amplitude * np.sin(k * np.pi * x[0]) * np.sin(k * np.pi * x[1])

        controls = [control_error(s, control) for s in solutions]
        blank = [math.nan]
        print(f"{name}: J* = {exact:.11e}\n")
        table(
            ["n", "J", "relative error", "order", "control error", "order", "iterations", "solves", "certificates"],
            [
                [
                    n,
                    f"{s.objective:.9e}",
                    f"{e:.2e}",
                    f"{p:.2f}",
                    f"{c:.2e}",
                    f"{q:.2f}",
                    s.stats["outer_iterations"],
                    s.stats["solves"]["solves"],
                    f"{s.certificate.state_residual:.0e}, {s.certificate.adjoint_residual:.0e}",
                ]
                for n, s, e, p, c, q in zip(
                    sizes, solutions, errors, blank + orders(errors), controls, blank + orders(controls), strict=True
                )
            ],
        )


def mesh_independence() -> None:
    """An unsymmetric target, on uniform meshes and on one refined about its peak."""
    target = "exp(-20*((x - 0.3)**2 + (y - 0.6)**2))"
    rows = []
    for n in (32, 64, 128, 256):
        s = nhgd.solve(nhgd.load(poisson_control(n, target, ALPHA)))
        rows.append([f"uniform {n}", s.stats["state_dofs"], s.status, s.stats["outer_iterations"]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "refined.vtk"
        mesh, ratio = locally_refined()
        meshio.Mesh(np.pad(mesh.p.T, ((0, 0), (0, 1))), [("triangle", mesh.t.T)]).write(path)
        s = nhgd.solve(nhgd.load(poisson_control(None, target, ALPHA, {"file": str(path)})))
        name = f"32, refined locally (areas 1 : {ratio:.0f})"
        rows.append([name, s.stats["state_dofs"], s.status, s.stats["outer_iterations"]])
    table(["mesh", "unknowns", "status", "iterations"], rows)


def bounds() -> None:
    """Bounds on the control, active on both sides: u* = clip(...), J* = 1.96485."""

    def exact(x: np.ndarray) -> np.ndarray:
        return np.clip(-5.0 * np.sin(2 * np.pi * x[0]) * np.sin(2 * np.pi * x[1]), -2.0, 3.0)

    sizes = (16, 32, 64, 128, 256)
    solutions = [nhgd.solve(nhgd.load("problems/poisson_bounds.yaml", {"mesh.cells": [n, n]})) for n in sizes]
    errors = [control_error(s, exact) for s in solutions]
    table(
        ["n", "J", "control error", "order", "iterations", "status"],
        [
            [n, f"{s.objective:.6f}", f"{e:.2e}", f"{p:.2f}", s.stats["outer_iterations"], s.status]
            for n, s, e, p in zip(sizes, solutions, errors, [math.nan, *orders(errors)], strict=True)
        ],
    )


def sampled() -> None:
    """Sampled tests and a dense inverse, with and without refinement: gap to the exact optimum over the initial gap."""
    rows = []
    for model in ("residual", "energy"):
        for refine in ("auto", "off"):
            problem = {
                **poisson_control(16, SPECTRAL_TARGET, ALPHA),
                "inner": {"model": model, "tests": 64},
                "curvature": {"kind": "dense"},
                "hypergradient": {"refine": refine},
                "outer": {"iterations": 25},
            }
            exact = nhgd.solve(nhgd.load({**problem, "method": "adjoint"})).objective
            s = nhgd.solve(nhgd.load(problem))
            gap = (s.objective - exact) / (s.stats["objective_initial"] - exact)
            rows.append(
                [
                    model,
                    refine,
                    f"{gap:+.1e}",
                    f"{s.certificate.state_residual:.0e}",
                    f"{s.certificate.adjoint_residual:.0e}",
                    s.stats["solves"]["solves"],
                    s.status,
                ]
            )
    table(["form", "refine", "gap", "state residual", "adjoint residual", "solves", "status"], rows)
    s = nhgd.solve(nhgd.load("problems/poisson_nhgd_paper.yaml"))
    defaults = {"preset": None, "inner": {}, "curvature": {}, "outer": {}}
    exact = nhgd.load("problems/poisson_nhgd_paper.yaml", defaults)
    best, reduced = nhgd.solve(exact).objective, nhgd.reduced(exact)
    gap = (reduced.value(s.control) - best) / (reduced.value(reduced.start) - best)
    print(f"poisson_nhgd_paper: gap {gap:.1e}; {s.status}: {s.message}\n")


SECTIONS: dict[str, Callable[[], None]] = {
    "derivatives": derivatives,
    "fisher": fisher,
    "dense": dense,
    "reference": reference,
    "mesh": mesh_independence,
    "bounds": bounds,
    "sampled": sampled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    for name in parser.parse_args().sections or SECTIONS:
        print(f"## {name}\n")
        SECTIONS[name]()


if __name__ == "__main__":
    main()
