"""The value of taking random inputs into account: designs and controls in the same fresh scenarios.

    python -m benchmarks.robustness

Every row is a solution of a shipped problem with some of its keys changed; the columns are statistics of the objective
in fresh scenarios of the shipped problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nhgd_pde as nhgd
from nhgd_pde.run.judging import scenario_values
from nhgd_pde.scenario_problem import ScenarioProblem

FOLDER = Path(__file__).resolve().parents[1] / "problems"
FRESH = 2000
STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "robust_topology": {
        "for the mean load": {"parameters.sideways.normal": [0, 1e-6]},
        "mean": {"risk": "mean"},
        "mean + deviation": {},
    },
    "cvar_control": {
        "for the mean inputs": {"parameters.angle.normal": [0, 1e-6], "parameters.k.field.std": 1e-6, "risk": "mean"},
        "mean": {"risk": "mean"},
        "cvar 0.9": {},
    },
    "darcy_wells": {"for the mean inputs": {"parameters.k.field.std": 1e-6}, "mean": {}},
}


def objectives(name: str, changes: Mapping[str, Any], count: int = FRESH) -> np.ndarray:
    """(count,) objectives of the solution of a changed problem, in fresh scenarios of the shipped problem."""
    path = FOLDER / f"{name}.yaml"
    solution = nhgd.solve(nhgd.load(path, {"scenarios.validation": 0, **changes}))
    problem = nhgd.load(path).stages[-1]
    assert isinstance(problem, ScenarioProblem)
    return scenario_values(problem, torch.from_numpy(solution.control), problem.drawn, count)


def main() -> None:
    for name, rows in STUDIES.items():
        print(f"{name}: objective in {FRESH:,} fresh scenarios")
        print(f"  {'':<22} {'mean':>9} {'deviation':>9} {'worst 10 %':>10} {'worst':>9}")
        for label, changes in rows.items():
            found = np.sort(objectives(name, changes))
            numbers = found.mean(), found.std(), found[-FRESH // 10 :].mean(), found[-1]
            print(f"  {label:<22} " + " ".join(f"{each:9.4g}" for each in numbers), flush=True)


if __name__ == "__main__":
    main()
