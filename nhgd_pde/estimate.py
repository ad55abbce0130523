"""What a solve is going to cost, before it is started."""

from __future__ import annotations

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

    Fill of a minimum degree factorisation of a P1 Laplacian, fitted to uniform meshes: 8 n^1.215 entries in two
    dimensions (n = 4e3 and 6.5e4), 4.6 n^1.5 in three (n = 7e3 and 1.6e4), 4 n in one.
    """
    scenarios, n = problem.inner_shape
    dim = problem.space.domain.dim
    entries = {1: 4.0 * n, 2: 8.0 * n**1.215, 3: 4.6 * n**1.5}[dim]
    factors = 12.0 * entries
    dense = 0.0
    if isinstance(method.oracle, NHGD) and isinstance(method.oracle.curvature, Dense):
        dense = 8.0 * (scenarios * n) ** 2
    # Libraries, and tables, matrices and vectors: fitted to the peak of runs with 4e3 to 2.6e5 unknowns in two
    # dimensions and 7e3 to 1.6e4 in three.
    rest = 3e8 + (2e4 if dim == 3 else 4e3) * problem.space.size
    return Estimate(factors, dense, rest + factors + dense)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000.0:
            return f"{count:.0f} {unit}"
        count /= 1000.0
    return f"{count:.1f} GB"
