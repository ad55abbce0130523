"""What a solve is going to cost, before it is started."""

from __future__ import annotations

from dataclasses import dataclass

from .engine.curvature.block import Block
from .engine.curvature.dense import Dense
from .engine.curvature.low_rank import LowRank
from .engine.nhgd import NHGD
from .engine.scenarios.saga import SAGA
from .engine.scenarios.streaming import Streaming
from .methods.robbins_monro import RobbinsMonro
from .methods.sample_average import SampleAverage
from .pde_problem import PDEProblem
from .problem.curvature import dense_bytes
from .problem.methods import Method
from .scenario_problem import ScenarioProblem


@dataclass(frozen=True)
class Estimate:
    """Bytes, rounded guesses.

    Attributes:
        factors: of one sparse factorisation.
        inverse: of a sampled one.
        scenarios: what grows with their number or with how many are worked on at once.
        total: of the run.
    """

    factors: float
    inverse: float
    scenarios: float
    total: float

    def __str__(self) -> str:
        inverse = f", the sampled inverse {_size(self.inverse)}" if self.inverse else ""
        scenarios = f", scenarios {_size(self.scenarios)}" if self.scenarios else ""
        return f"memory: about {_size(self.total)}; sparse factors about {_size(self.factors)}{inverse}{scenarios}"


def estimate(problem: PDEProblem, method: Method, scenarios: ScenarioProblem | None = None) -> Estimate:
    """Guess the memory of a solve.

    Args:
        problem: the problem, that of the nominal scenario where inputs are random.
        method: what solves it.
        scenarios: all of them.

    Fill of a minimum degree factorisation of a P1 Laplacian, fitted to uniform meshes: 8 n^1.215 entries in two
    dimensions (n = 4e3 and 6.5e4), 4.6 n^1.5 in three (n = 7e3 and 1.6e4), 4 n in one. Where the couplings of edges
    vanish, as those across right angles do in regular meshes of simplices, there is half of that.
    """
    rows, n = problem.inner_shape
    dim = problem.space.domain.dim
    equation = problem.equation
    spatial = len(equation.spatial_free)
    entries = {1: 4.0 * spatial, 2: 8.0 * spatial**1.215, 3: 4.6 * spatial**1.5}[dim]
    # Of an evolution with constant coefficients all steps share one; of others each has its own.
    factors = 12.0 * entries * (1 if equation.affine else equation.repeats)
    inverse = 0.0
    if isinstance(method.oracle, NHGD):
        inverse = _inverse_bytes(method.oracle.curvature, rows * n)
    # Libraries, and tables, matrices and vectors: fitted to the peak of runs with 4e3 to 2.6e5 unknowns in two
    # dimensions and 7e3 to 1.6e4 in three.
    rest = 3e8 + (2e4 if dim == 3 else 4e3) * problem.space.size
    if equation.repeats > 1:
        # Fitted to 2e4 to 1.6e5 unknowns in two dimensions: several sets of factors are alive where they change.
        rest += (2.6e3 if equation.affine else 1.2e4) * n
    many = 0.0 if scenarios is None else _scenario_bytes(scenarios, method.oracle, factors)
    return Estimate(factors, inverse, many, rest + factors + inverse + many)


def _scenario_bytes(problem: ScenarioProblem, oracle: object, factors: float) -> float:
    """Rows of numbers that are kept, and the matrices of the scenarios that are worked on.

    Fitted to the peaks of runs with 1e3 and 2e3 unknowns in 64 to 4096 scenarios, 8 to 128 of them at once: states and
    adjoints are there at the iterate, at a trial point and in the output, hypergradients twice; weights of a batch that
    grows, and their error, are made from matrices of all pairs in it.
    """
    (count, n), p, nominal = problem.inner_shape, problem.outer_size, problem.nominal
    cells = nominal.space.cells
    # Entries of a row: how many elements meet in a node, times the functions of each.
    entries = {1: 1.5, 2: 2.2, 3: 3.5}[nominal.space.domain.dim] * cells.dofs.shape[1] * nominal.space.size
    points = cells.quadrature.points
    rows, batch = 8.0 * count * (6.0 * n + 2.0 * p), problem.at_once
    match oracle:
        case SampleAverage(solver=solver):
            kept = 8.0 * (entries + 4.0 * points) + (factors if solver == "factors" else 0.0)
            return rows + count * kept
        case Streaming(batch=size):
            rows, batch = 0.0, size
        case RobbinsMonro(batch=size, start=start):
            rows, batch = (16.0 * count * n if start == "kept" else 0.0), size
        case SAGA(batch=size):
            batch = size
        case _:
            rows += 8.0 * count**2
    return rows + min(batch, count) * 8.0 * (entries + 8.0 * points)


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
