"""The work that problems take, in counts that do not depend on the machine: they may fall, and must not grow.

Numbers of iterations may differ by two with the rounding errors of a processor, all others follow from them.
"""

from __future__ import annotations

from typing import Any

import pytest

import nhgd_pde as nhgd

# Name, settings; then the outer iterations, and for k of them the factorisations, solves, residuals, products with the
# linearised equation, and inversions of the inner product of the controls.
CASES: list[tuple[str, dict[str, Any], int, dict[str, tuple[int, int]]]] = [
    # (a, b) is a + b k. The first evaluation takes the adjoint and one solve for the bound of residuals; an iteration
    # takes one solve with J and one with its transpose; the last evaluation takes none.
    (
        "poisson_control",
        {"mesh.cells": [32, 32]},
        21,
        {"factorisations": (1, 0), "solves": (2, 2), "residuals": (2, 0), "products": (2, 0), "riesz_solves": (1, 0)},
    ),
    (
        "poisson_control_3d",
        {"mesh.cells": [8, 8, 8]},
        6,
        {"factorisations": (1, 0), "solves": (2, 2), "residuals": (2, 0), "products": (2, 0), "riesz_solves": (1, 0)},
    ),
    # With bounds, the last point is evaluated.
    (
        "poisson_bounds",
        {"mesh.cells": [32, 32]},
        4,
        {"factorisations": (1, 0), "solves": (6, 2), "residuals": (4, 0), "products": (5, 0), "riesz_solves": (0, 0)},
    ),
    (
        "semilinear_control",
        {"mesh.cells": [16, 16], "objective.0.target_at": "nodes"},
        7,
        {"factorisations": (1, 1), "solves": (5, 7), "residuals": (2, 4), "products": (7, 5), "riesz_solves": (4, 1)},
    ),
]


@pytest.mark.parametrize(("name", "settings", "iterations", "work"), CASES, ids=[case[0] for case in CASES])
def test_the_work_of_a_solve_does_not_grow(
    name: str, settings: dict[str, Any], iterations: int, work: dict[str, tuple[int, int]]
) -> None:
    found = nhgd.solve(nhgd.load(f"problems/{name}.yaml", settings))
    assert found.status == "converged"
    taken = found.stats["outer_iterations"]
    assert taken <= iterations + 2
    counts = found.stats["solves"]
    grown = {key: (counts[key], a + b * taken) for key, (a, b) in work.items() if counts[key] > a + b * taken}
    assert not grown, "(found, allowed)"
