"""Every shipped problem with its defaults and with the exact adjoint: status, iterations, objective, seconds.

    python -m benchmarks.shipped [NAME...]

It fails if a run does not converge or takes more than 60 s, or if the two methods disagree: by more than 1e-6 in the
objective, or by more than a fifth, and more than one, in the outer iterations.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nhgd_pde as nhgd

EVERY = sorted((Path(__file__).resolve().parents[1] / "problems").glob("*.yaml"))
# The problems with an equation whose state is one of finite elements. The others are tasks of machine learning, and
# problems whose state is a network (`benchmarks.networks`).
PROBLEMS = [path for path in EVERY if "\npde:" in (text := path.read_text(encoding="utf-8")) and "\nstate:" not in text]
# The unchanged algorithm of the paper has a bias, so that it cannot meet a stopping rule of this kind.
UNCONVERGED = {"poisson_nhgd_paper"}
SECONDS = 60.0


def agreement(path: Path) -> tuple[nhgd.Solution, nhgd.Solution, str]:
    """The solutions by nhgd and by the exact adjoint, and a sentence on what is wrong, which may be empty."""
    ours, exact = (nhgd.solve(nhgd.load(path, {"method": method})) for method in ("nhgd", "adjoint"))
    gap = abs(ours.objective - exact.objective) / max(abs(exact.objective), 1e-300)
    iterations = [int(found.stats["outer_iterations"]) for found in (ours, exact)]
    faults = [f"{found.stats['method']}: {found.message}" for found in (ours, exact) if found.status != "converged"]
    if gap > 1e-6:
        faults.append(f"objectives differ by {gap:.1e}")
    # With few iterations, one iteration is more than a fifth.
    if iterations[0] > max(1.2 * iterations[1], iterations[1] + 1):
        faults.append(f"{iterations[0]} iterations against {iterations[1]}")
    return ours, exact, "; ".join(faults)


def main(names: list[str]) -> int:
    print(f"{'problem':<28} {'iterations':>12} {'solves':>14} {'objective':>17} {'seconds':>14}")
    failed = 0
    for path in PROBLEMS:
        if path.stem in UNCONVERGED or (names and path.stem not in names):
            continue
        ours, exact, fault = agreement(path)
        seconds = [float(found.stats["seconds"]) for found in (ours, exact)]
        if max(seconds) > SECONDS:
            fault = "; ".join(filter(None, [fault, f"more than {SECONDS:.0f} s"]))
        counts = [[found.stats["outer_iterations"], found.stats["solves"]["solves"]] for found in (ours, exact)]
        print(
            f"{path.stem:<28} {counts[0][0]:>5} /{counts[1][0]:>5} {counts[0][1]:>6} /{counts[1][1]:>6} "
            f"{ours.objective:17.9e} {seconds[0]:6.1f} /{seconds[1]:6.1f}  {fault}",
            flush=True,
        )
        failed += bool(fault)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
