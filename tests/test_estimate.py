"""The cost that `check` states against the fill of real factorisations."""

from __future__ import annotations

from typing import Any

import pytest

import nhgd_pde as nhgd
from nhgd_pde.estimate import estimate
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
def test_fill_is_within_forty_per_cent(mesh: dict[str, Any]) -> None:
    problem = nhgd.load("problems/poisson_control.yaml", {"mesh": mesh, "objective.0.target": "x"})
    state = problem.pde.equation.constant_linearisation.state
    fill = Factorisation(state.host(), problem.pde.counts, symmetric=True).fill
    assert estimate(problem.pde, problem.method).factors == pytest.approx(12 * fill, rel=0.4)
