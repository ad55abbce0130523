"""The costs that `check` estimates, compared with real factorisations and runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nhgd_pde as nhgd
from nhgd_pde.choice.estimate import estimate
from nhgd_pde.linalg.factorisation import Factorisation


@pytest.mark.parametrize(
    "mesh",
    [
        {"kind": "interval", "cells": 500},
        {"kind": "rectangle", "cells": 100},
        {"kind": "rectangle", "cells": [200, 50]},
        {"kind": "rectangle", "cells": 100, "cell": "quadrilateral"},
        {"kind": "box", "cells": 16},
        {"kind": "box", "cells": 16, "cell": "hexahedron"},
    ],
)
def test_the_estimated_fill_is_within_forty_per_cent(mesh: dict[str, Any]) -> None:
    dim = {"interval": 1, "rectangle": 2, "box": 3}[mesh["kind"]]
    # The anisotropy is not aligned with the mesh, because some couplings would be zero otherwise.
    conductivity = [row[:dim] for row in ([2.0, 0.3, 0.7], [0.3, 3.0, 0.45], [0.7, 0.45, 1.5])[:dim]]
    overrides = {"mesh": mesh, "objective.0.target": "x", "pde.conductivity": conductivity}
    problem = nhgd.load("problems/poisson_control.yaml", overrides)
    state = problem.pde.equation.constant_linearisation.state
    fill = Factorisation(state.host(), problem.pde.counts, symmetric=True).prepared.fill
    assert estimate(problem.pde, problem.method).factors == pytest.approx(12 * fill, rel=0.4)


@pytest.mark.parametrize(
    ("problem", "mesh"),
    [
        ("poisson_control", {"kind": "rectangle", "cells": 128}),
        ("poisson_control", {"kind": "rectangle", "cells": 128, "cell": "quadrilateral"}),
        ("poisson_control", {"kind": "box", "cells": 20}),
        ("poisson_control", {"kind": "box", "cells": 24, "cell": "hexahedron"}),
        ("elastic_control", {"kind": "rectangle", "size": [2, 1], "cells": [80, 40]}),
    ],
)
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_the_estimated_bytes_of_a_hierarchy_are_within_forty_per_cent(
    problem: str, mesh: dict[str, Any], element: str
) -> None:
    if element == "P2":
        if mesh["kind"] == "box":
            pytest.skip("with so few cells most rows are shorter, because they are near the boundary")
        # As many unknowns.
        cells = mesh["cells"]
        mesh = {**mesh, "cells": [each // 2 for each in cells] if isinstance(cells, list) else cells // 2}
    overrides: dict[str, Any] = {"mesh": mesh, "element": element, "solver.kind": "amg"}
    if problem == "poisson_control":
        overrides |= {"objective.0.target": "x", "pde.conductivity": "1 + x"}
    loaded = nhgd.load(f"problems/{problem}.yaml", overrides)
    equation = loaded.pde.equation
    state = equation.constant_linearisation.state
    held = Factorisation(state.host(), loaded.pde.counts, symmetric=True, solver=equation.solver).bytes
    said = estimate(loaded.pde, loaded.method)
    assert said.factors == pytest.approx(held, rel=0.4)
    assert said.solver == "amg" and "multigrid hierarchy about" in str(said)


PEAK = """
import sys
import nhgd_pde as nhgd
overrides = {"mesh.cells": [32, 32], "scenarios.count": int(sys.argv[2]), "scenarios.validation": 0, "outer.rtol": 1e-3}
problem = nhgd.load("problems/robust_poisson.yaml", {**overrides, "method": sys.argv[1]})
nhgd.solve(problem)
# What getrusage says starts from the peak of the process that started this one.
status = dict(line.split(":", 1) for line in open("/proc/self/status", encoding="utf-8"))
print(1024 * int(status["VmHWM"].split()[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_the_estimated_memory_of_scenarios_is_right_up_to_a_factor_of_two(method: str) -> None:
    """The difference of two peaks excludes libraries and the mesh."""
    taken, said = [], []
    for count in (64, 512):
        command = [sys.executable, "-c", PEAK, method, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken.append(int(done.stdout))
        problem = nhgd.load("problems/robust_poisson.yaml", {"scenarios.count": count, "method": method})
        assert problem.scenarios is not None
        said.append(estimate(problem.pde, problem.method, problem.scenarios.problem).total)
    assert 0.5 < (said[1] - said[0]) / (taken[1] - taken[0]) < 2.0


def test_the_estimate_of_a_stream_does_not_depend_on_the_number_of_scenarios() -> None:
    said = []
    for count in (64, 4096):
        stream = {"scenarios.count": count, "scenarios.strategy": "streaming"}
        problem = nhgd.load("problems/robust_poisson.yaml", stream)
        assert problem.scenarios is not None
        said.append(estimate(problem.pde, problem.method, problem.scenarios.problem).total)
    assert said[0] == said[1]


def test_check_prints_the_memory_of_scenarios() -> None:
    problem = nhgd.load("problems/robust_poisson.yaml")
    assert problem.scenarios is not None
    assert ", scenarios " in str(estimate(problem.pde, problem.method, problem.scenarios.problem))
    assert "scenarios" not in str(estimate(problem.pde, problem.method))
