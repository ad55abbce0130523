"""What a solve is going to cost, before it is started."""

from __future__ import annotations

from dataclasses import dataclass

from .engine.curvature.block import Block
from .engine.curvature.dense import Dense
from .engine.curvature.low_rank import LowRank
from .engine.nhgd import NHGD
from .pde_problem import PDEProblem
from .problem.curvature import dense_bytes
from .problem.methods import Method


@dataclass(frozen=True)
class Estimate:
    """Bytes, rounded guesses: `factors` of one sparse factorisation, `inverse` of a sampled one, `total` of the run."""

    factors: float
    inverse: float
    total: float

    def __str__(self) -> str:
        inverse = f", the sampled inverse {_size(self.inverse)}" if self.inverse else ""
        return f"memory: about {_size(self.total)}; sparse factors about {_size(self.factors)}{inverse}"


def estimate(problem: PDEProblem, method: Method) -> Estimate:
    """Guess the memory of a solve.

    Fill of a minimum degree factorisation of a P1 Laplacian, fitted to uniform meshes: 8 n^1.215 entries in two
    dimensions (n = 4e3 and 6.5e4), 4.6 n^1.5 in three (n = 7e3 and 1.6e4), 4 n in one.
    """
    scenarios, n = problem.inner_shape
    dim = problem.space.domain.dim
    equation = problem.equation
    spatial = len(equation.spatial_free)
    entries = {1: 4.0 * spatial, 2: 8.0 * spatial**1.215, 3: 4.6 * spatial**1.5}[dim]
    # Of an evolution with constant coefficients all steps share one; of others each has its own.
    factors = 12.0 * entries * (1 if equation.affine else equation.repeats)
    inverse = 0.0
    if isinstance(method.oracle, NHGD):
        inverse = _inverse_bytes(method.oracle.curvature, scenarios * n)
    # Libraries, and tables, matrices and vectors: fitted to the peak of runs with 4e3 to 2.6e5 unknowns in two
    # dimensions and 7e3 to 1.6e4 in three.
    rest = 3e8 + (2e4 if dim == 3 else 4e3) * problem.space.size
    if equation.repeats > 1:
        # Fitted to 2e4 to 1.6e5 unknowns in two dimensions: several sets of factors are alive where they change.
        rest += (2.6e3 if equation.affine else 1.2e4) * n
    return Estimate(factors, inverse, rest + factors + inverse)


def _inverse_bytes(backend: object, unknowns: int) -> float:
    match backend:
        case Dense():
            return dense_bytes(unknowns)
        case Block(size=size):
            return 8.0 * size * unknowns
        case LowRank(rank=rank):
            return 16.0 * rank * unknowns
    return 0.0


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000.0:
            return f"{count:.0f} {unit}"
        count /= 1000.0
    return f"{count:.1f} GB"
