"""`outer.rtol: auto` against the default goal on the shipped problems: solves, and what is left of the objective.

    python -m benchmarks.automatic_goal [NAME ...]

Printed are the solves with K of both runs and their ratio, the estimated error of the mesh relative to the objective,
and the objective of the first run minus that of the second, as a share of the error of the mesh: at most 0.1 is asked
for. Problems without an estimate are left out, as `auto` is the default for them.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import nhgd_pde as nhgd
from nhgd_pde.discretisation import NoEstimateError, estimate_error


def compared(path: Path) -> tuple[int, int, float, float] | str:
    """Solves of both runs, the error of the mesh, and the share of it that is left; or why there is no comparison."""
    problem = nhgd.load(path)
    if not isinstance(problem, nhgd.Problem):
        return "a task"
    spec = problem.file.spec
    if problem.scenarios is not None or problem.pde.state_bounds or spec.state is not None or spec.method != "nhgd":
        return "random inputs, bounds of the state, a network, or another method"
    whole = nhgd.solve(problem)
    try:
        error = abs(estimate_error(problem, whole).value)
    except NoEstimateError as missing:
        return str(missing)
    auto = nhgd.solve(nhgd.load(path, {"outer.rtol": "auto"}))
    solves = [int(each.stats["solves"]["solves"]) for each in (auto, whole)]
    share = (auto.objective - whole.objective) / error if error else 0.0
    return solves[0], solves[1], error / abs(whole.objective), share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    paths = [Path("problems") / f"{name}.yaml" for name in names] or sorted(Path("problems").glob("*.yaml"))
    ratios = []
    for path in paths:
        found = compared(path)
        if isinstance(found, str):
            print(f"| `{path.stem}` | {found} |", flush=True)
            continue
        few, many, error, share = found
        ratios.append(few / many)
        print(f"| `{path.stem}` | {few} / {many} | {few / many:.2f} | {error:.1e} | {share:.1e} |", flush=True)
    if ratios:
        print(f"median of the ratios: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
