"""What a solve is going to cost, before it is started."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.curvature.block import Block
from ..engine.curvature.dense import Dense
from ..engine.curvature.low_rank import LowRank
from ..engine.nhgd import NHGD
from ..engine.scenarios.saga import SAGA
from ..engine.scenarios.streaming import Streaming
from ..methods.robbins_monro import RobbinsMonro
from ..methods.sample_average import SampleAverage
from ..pde_problem import PDEProblem
from ..problem_file.room import EVOLUTION, LIBRARIES, ROW, STATE, factor_entries, size_text
from ..scenario_problem import ScenarioProblem
from .backend import dense_bytes
from .method import Method


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
        inverse = f", the sampled inverse {size_text(self.inverse)}" if self.inverse else ""
        scenarios = f", scenarios {size_text(self.scenarios)}" if self.scenarios else ""
        return (
            f"memory: about {size_text(self.total)}; sparse factors about {size_text(self.factors)}{inverse}{scenarios}"
        )


def estimate(problem: PDEProblem, method: Method, scenarios: ScenarioProblem | None = None) -> Estimate:
    """Guess the memory of a solve.

    Args:
        problem: the problem, that of the nominal scenario where inputs are random.
        method: what solves it.
        scenarios: all of them.
    """
    rows, n = problem.inner_shape
    dim = problem.space.domain.dim
    equation = problem.equation
    spatial = len(equation.spatial_free)
    # Of an evolution with constant coefficients all steps share one; of others each has its own.
    factors = 12.0 * factor_entries(spatial, dim) * (1 if equation.affine else equation.repeats)
    inverse = 0.0
    if isinstance(method.oracle, NHGD):
        inverse = _inverse_bytes(method.oracle.curvature, rows * n)
    rest = LIBRARIES + STATE[dim] * problem.space.size
    if equation.repeats > 1:
        rest += EVOLUTION[equation.affine] * n
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
    entries = ROW[nominal.space.domain.dim] * cells.dofs.shape[1] * nominal.space.size
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
