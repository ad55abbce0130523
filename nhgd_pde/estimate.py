"""What a solve is going to cost, before it is started."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .engine.curvature.dense import Dense
from .engine.nhgd import NHGD
from .pde_problem import PDEProblem
from .problem.methods import Method


@dataclass(frozen=True)
class Estimate:
    """Bytes, rounded guesses: `factors` of one sparse factorisation, `dense` of a full inverse, `total` of the run."""

    factors: float
    dense: float
    total: float

    def __str__(self) -> str:
        dense = f", the dense inverse {_size(self.dense)}" if self.dense else ""
        return f"memory: about {_size(self.total)}; sparse factors about {_size(self.factors)}{dense}"


def estimate(problem: PDEProblem, method: Method) -> Estimate:
    """Guess the memory of a solve.

    Fill of a minimum degree factorisation of a P1 Laplacian, measured: 3.2 n log2 n entries in two dimensions (n from
    4e3 to 2.6e5), 8 n^(4/3) in three (n from 3e3 to 3e4), 3 n in one.
    """
    scenarios, n = problem.inner_shape
    dim = problem.space.domain.dim
    entries = {1: 4.0 * n, 2: 3.2 * n * math.log2(max(n, 2)), 3: 8.0 * n ** (4.0 / 3.0)}[dim]
    factors = 12.0 * entries
    dense = 0.0
    if isinstance(method.oracle, NHGD) and isinstance(method.oracle.curvature, Dense):
        dense = 8.0 * (scenarios * n) ** 2
    # Basis tables, matrices and vectors, a hundred and fifty numbers a quadrature point's share; 0.4 GB of libraries.
    rest = 4e8 + 150.0 * 8.0 * problem.space.size
    return Estimate(factors, dense, rest + factors + dense)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000.0:
            return f"{count:.0f} {unit}"
        count /= 1000.0
    return f"{count:.1f} GB"
