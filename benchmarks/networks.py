"""Networks as states beside finite elements in the same file: `python -m benchmarks.networks [NAME...]`.

For each problem: the optimal objective of finite elements, the objective of the network's control evaluated with
finite elements, what the network itself reports, and the seconds of both runs. It fails if a control of a network is
more than 5 per cent worse.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nhgd_pde as nhgd

from .shipped import EVERY

DATA = Path(__file__).parent / "data"
SHIPPED = [path for path in EVERY if "\nstate:" in path.read_text(encoding="utf-8")]
NETWORKS = [*SHIPPED, DATA / "heat_network.yaml", DATA / "two_inlets.yaml"]
_WORSE = 0.05


def compared(path: Path) -> tuple[str, bool]:
    """A row of the table, and whether the control is good enough."""
    finite = {"state": None}
    elements, network = nhgd.solve(nhgd.load(path, finite)), nhgd.solve(nhgd.load(path))
    control = nhgd.load(path, finite).reduced
    first, found, best = control.value(control.start), control.value(network.control), elements.objective
    # The objective of the start is the scale where the best one is zero.
    gap = (found - best) / max(abs(best), _WORSE * abs(first - best))
    cells = [
        path.stem,
        f"{first:.4e}",
        f"{best:.6e}",
        f"{found:.6e}",
        f"{network.objective:.6e}",
        f"{gap:.1e}",
        f"{network.stats['state_residual']:.0e}",
        f"{network.status}, {network.stats['outer_iterations']}",
        f"{elements.stats['seconds']:.1f}",
        f"{network.stats['seconds']:.1f}",
    ]
    return f"| {' | '.join(cells)} |", gap <= _WORSE


def main(names: list[str]) -> int:
    head = ("problem", "start", "finite elements", "control of the network", "as reported", "gap", "state error")
    head = (*head, "status, iterations", "seconds of elements", "of the network")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    good = True
    for path in NETWORKS:
        if not names or path.stem in names:
            row, fine = compared(path)
            print(row, flush=True)
            good = good and fine
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
