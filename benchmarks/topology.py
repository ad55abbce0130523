"""Published designs: the MBB half beam of Andreassen et al. 2011, and dolfin-adjoint's heat sink (poisson-topology).

python -m benchmarks.topology [cells of the heat sink along each side; the published one has 250]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nhgd_pde as nhgd

PROBLEMS = Path(__file__).parents[1] / "problems"
BEAMS = (("cone", 2.4, 233.71), ("sensitivity", 2.4, 216.81), ("sensitivity", 1.5, 203.19))
HEAT_SINK = 1.45e-4


def _solved(name: str, overrides: dict[str, Any]) -> nhgd.Solution:
    return nhgd.solve(nhgd.load(PROBLEMS / f"{name}.yaml", overrides))


def _report(what: str, solution: nhgd.Solution, published: str) -> None:
    stats = solution.stats
    print(
        f"{what}: objective {solution.objective:.6g} (published {published}), {stats['outer_iterations']} iterations, "
        f"{stats['solves']['factorisations']} factorisations, {stats['seconds']:.1f} s; {solution.status}",
        flush=True,
    )


def main(cells: int = 250) -> None:
    for kind, radius, published in BEAMS:
        overrides = {"outer.method": "oc", "control.filter": kind, "control.filter_radius": radius}
        _report(f"beam, {kind} filter, radius {radius}", _solved("mbb_beam", overrides), f"{published}")
    _report("beam, cone filter, moving asymptotes", _solved("mbb_beam", {}), f"{BEAMS[0][2]}")
    solution = _solved("heat_sink", {"mesh.cells": [cells, cells]})
    _report(f"heat sink, {cells} x {cells} cells", solution, f"at most {HEAT_SINK:g}")


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:]))
