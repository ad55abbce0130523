"""Outer iterations with all defaults, for several meshes and for several weights of the regularisation.

    python -m benchmarks.mesh_independence [meshes|weights] [KIND ...]

The problems are generic: no symmetry, and a target that the state does not reach.
"""

from __future__ import annotations

import argparse
from typing import Any

import nhgd_pde as nhgd

CELLS = (16, 32, 64, 128)
WEIGHTS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)

PEAK = "exp(-20*((x-0.3)**2 + (y-0.6)**2))"
ZERO = {"all": {"dirichlet": 0}}
LEFT = {"left": {"dirichlet": 0}}
WARM = {**LEFT, "right": {"robin": {"coefficient": "1 + y", "value": 1}}}
HEAT = {"kind": "heat", "boundary": ZERO}
# An inversion: sin(pi*x)*sin(pi*y) is the state of the conductivity exp(v), v = exp(-20*((x-0.3)**2 + (y-0.6)**2))/2.
STATE = "sin(pi*x)*sin(pi*y)"
SOURCE = f"exp({PEAK}/2)*(2*pi**2*{STATE} + 20*pi*{PEAK}*((x-0.3)*cos(pi*x)*sin(pi*y) + (y-0.6)*sin(pi*x)*cos(pi*y)))"


def _problem(
    control: dict[str, Any],
    pde: dict[str, Any] | None = None,
    target: Any = PEAK,
    weight: float = 1e-3,
    norm: str = "l2",
    **more: Any,
) -> dict[str, Any]:
    return {
        "name": "mesh_independence",
        "mesh": {"kind": "rectangle"},
        "pde": {"kind": "poisson", "boundary": ZERO} | (pde or {}),
        "control": control,
        "objective": [
            {"kind": "tracking", "target": target},
            {"kind": "regularisation", "norm": norm, "weight": weight},
        ],
    } | more


def _design(penalty: float, method: str) -> dict[str, Any]:
    """The least compliance of a filtered design with 40 % of a conductor, from a design with the same volume."""
    return _problem(
        {
            "kind": "density",
            "low": 1e-3,
            "penalty": penalty,
            "filter": "helmholtz",
            "filter_radius": 0.1,
            "space": "P0",
            "initial": 0.4,
        },
        {"source": 1e-2, "boundary": {"left": {"dirichlet": 0}, "top": {"dirichlet": 0}}},
        objective=[{"kind": "compliance"}],
        constraints=[{"kind": "volume", "fraction": 0.4}],
        outer={"method": method},
    )


KINDS: dict[str, dict[str, Any]] = {
    "source": _problem({"kind": "source"}, weight=1e-4),
    "source with bounds": _problem({"kind": "source", "bounds": [-2, 5]}, weight=1e-4),
    "neumann": _problem({"kind": "neumann", "on": "right"}, {"boundary": LEFT}),
    "robin": _problem({"kind": "robin", "on": "right"}, {"boundary": WARM}),
    "dirichlet": _problem({"kind": "dirichlet", "on": "all"}, weight=1e-2),
    "initial": _problem({"kind": "initial"}, HEAT, time={"end": 0.1, "steps": 10}),
    "neumann in time": _problem(
        {"kind": "neumann", "on": "right"}, HEAT | {"boundary": LEFT}, time={"end": 1, "steps": 10}
    ),
    "conductivity": _problem(
        {"kind": "conductivity", "initial": 1, "bounds": [0.3, 3]}, {"source": SOURCE}, STATE, 1e-4, "h1"
    ),
    "log_conductivity": _problem({"kind": "log_conductivity"}, {"source": SOURCE}, STATE, 1e-4, "h1"),
    "parameter": _problem(
        {"kind": "parameter", "name": "a", "initial": 1}, {"source": "a*exp(-a*x)", "conductivity": "1 + a**2*y"}
    ),
    "elasticity": _problem(
        {"kind": "source"}, {"kind": "elasticity", "boundary": {"left": {"dirichlet": [0, 0]}}}, [PEAK, 0]
    ),
    "density, penalty 1, oc": _design(1, "oc"),
    "density, penalty 1, mma": _design(1, "mma"),
    "density, penalty 3, oc": _design(3, "oc"),
    "density, penalty 3, mma": _design(3, "mma"),
}
# The kinds whose iterations vary by more than a fifth.
OPEN = ("density, penalty 1, mma", "density, penalty 3, oc", "density, penalty 3, mma")

# The kinds that are run with weights of the regularisation from 1e-2 to 1e-8.
WEIGHTED: dict[str, dict[str, Any]] = {
    **{kind: KINDS[kind] for kind in ("source", "source with bounds", "neumann", "dirichlet", "robin")},
    "log_conductivity, l2": _problem({"kind": "log_conductivity"}, {"source": SOURCE}, STATE),
    "log_conductivity, h1": KINDS["log_conductivity"],
    "initial": KINDS["initial"],
}


def solved(content: dict[str, Any], cells: int, overrides: dict[str, Any] | None = None) -> nhgd.Solution:
    """The solution on cells x cells cells."""
    return nhgd.solve(nhgd.load(content, {"mesh.cells": [cells, cells], **(overrides or {})}))


def spread(counts: list[int]) -> float:
    """(max - min) / min."""
    return (max(counts) - min(counts)) / min(counts)


def independent(counts: list[int]) -> bool:
    """Whether counts agree up to 20 %, or up to one if they are below ten."""
    return spread(counts) <= 0.2 or (max(counts) < 10 and max(counts) - min(counts) <= 1)


def _entry(solution: nhgd.Solution) -> str:
    solves = solution.stats["solves"]["solves"]
    iterations = solution.stats["outer_iterations"]
    return f"{iterations} ({solves}){'' if solution.status == 'converged' else ', stopped'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("meshes", "weights"))
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--cells", type=int, nargs="+", help="sizes of meshes, of which weights take the first")
    options = parser.parse_args()
    print("Outer iterations (linear systems solved)\n")
    if options.table == "meshes":
        sizes = options.cells or CELLS
        print(
            "| control | " + " | ".join(f"n = {n}" for n in sizes) + " | spread |\n" + "|---" * (len(sizes) + 2) + "|"
        )
        for kind in options.kinds or KINDS:
            solutions = [solved(KINDS[kind], n) for n in sizes]
            percent = 100.0 * spread([solution.stats["outer_iterations"] for solution in solutions])
            print(f"| {kind} | {' | '.join(map(_entry, solutions))} | {percent:.0f} % |", flush=True)
    else:
        n = options.cells[0] if options.cells else 32
        print("| control | " + " | ".join(f"{weight:.0e}" for weight in WEIGHTS) + " |\n" + "|---" * 8 + "|")
        for kind in options.kinds or WEIGHTED:
            entries = [_entry(solved(WEIGHTED[kind], n, {"objective.1.weight": weight})) for weight in WEIGHTS]
            print(f"| {kind} | {' | '.join(entries)} |", flush=True)


if __name__ == "__main__":
    main()
