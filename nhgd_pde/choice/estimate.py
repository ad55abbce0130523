"""How much memory a solve is going to take, estimated before it is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..engine.curvature.base import LocalBackend
from ..engine.nhgd import NHGD
from ..engine.reversal import Reversal
from ..engine.scenarios.footprint import Footprint, OverScenarios
from ..horizon_problem import HorizonProblem
from ..pde_problem import PDEProblem
from ..problem_file.room import EVOLUTION, LIBRARIES, ROW, STATE, prepared_bytes, size_text
from ..scenario_problem import ScenarioProblem
from .method import Method


@runtime_checkable
class TangentOracle(Protocol):
    """An oracle that keeps the derivatives of the state by the parameters of a network."""

    def tangent_bytes(self, problem: PDEProblem) -> float: ...


@dataclass(frozen=True)
class Estimate:
    """Estimated numbers of bytes.

    Attributes:
        factors: of one sparse factorisation, or one multigrid hierarchy.
        inverse: of an inverse that is made from samples.
        scenarios: grows with the number of scenarios or with the number of those that are worked on at once.
        carried: of the derivatives of states that are kept: by controls in forward mode, by parameters of networks.
        kept: of the states that are kept where the others are made again.
        repeats: number of forward solves that a gradient takes then; 1 where all states are kept.
        members: of further processes that share the members of a population.
        total: of the run.
        solver: the name of the solver of linear systems, other than auto.
        reason: why it was chosen; empty where the file asks for it.
    """

    factors: float
    inverse: float
    scenarios: float
    carried: float
    members: float
    total: float
    solver: str
    reason: str
    kept: float = 0.0
    repeats: float = 1.0

    def __str__(self) -> str:
        inverse = f", the sampled inverse {size_text(self.inverse)}" if self.inverse else ""
        scenarios = f", scenarios {size_text(self.scenarios)}" if self.scenarios else ""
        carried = f", derivatives of states {size_text(self.carried)}" if self.carried else ""
        again = f", {self.repeats:.2f} forward solves a gradient" if self.kept else ""
        carried += f", kept states {size_text(self.kept)}{again}" if self.kept else ""
        what = "multigrid hierarchy" if self.solver in ("amg", "petsc") else "sparse factors"
        factors = f"{what} about {size_text(self.factors)}"
        members = f", processes of members {size_text(self.members)}" if self.members else ""
        reason = f" ({self.reason})" if self.reason else ""
        solver = f"solver: {self.solver}{reason}"
        return f"{solver}\nmemory: about {size_text(self.total)}; {factors}{inverse}{scenarios}{carried}{members}"


def estimate(
    problem: PDEProblem, method: Method, scenarios: ScenarioProblem | None = None, processes: int = 1
) -> Estimate:
    """Estimate the memory of a solve.

    Args:
        problem: the problem; where inputs are random, the problem of the nominal scenario.
        method: what solves it.
        scenarios: the problem over all scenarios.
        processes: number of processes that share the members of a population; 1 without further processes.
    """
    rows, n = problem.inner_shape
    dim = problem.space.domain.dim
    equation = problem.equation
    spatial = len(equation.spatial_free)
    steps, carried = equation.repeats, 0.0
    kept, repeats = 0.0, 1.0
    if isinstance(problem, HorizonProblem):
        steps = problem.at_once
        n *= steps
        if problem.room:
            kept = 8.0 * (problem.room + 1) * problem.space.size
            repeats = Reversal(problem.steps, problem.room, problem.at_once).forward_steps / problem.steps
        else:
            carried = problem.bytes_carried
    if isinstance(method.oracle, TangentOracle):
        carried = method.oracle.tangent_bytes(problem)
    # The steps of an evolution with constant coefficients share one factorisation; otherwise each step has its own.
    solver, reason = equation.solver.chosen(spatial)
    vector, element = equation.solver.hints.near_nullspace is not None, problem.space.parts[0].element
    row = _entries(problem) / problem.space.size
    factors = prepared_bytes(solver.name, spatial, row, dim, vector, element) * (1 if equation.affine else steps)
    inverse = many = 0.0
    if isinstance(method.oracle, NHGD) and isinstance(method.oracle.curvature, LocalBackend):
        inverse = method.oracle.curvature.bytes(rows * n)
    rest = LIBRARIES + STATE[dim] * problem.space.size
    if equation.repeats > 1:
        rest += EVOLUTION[equation.affine] * n
    if scenarios is not None and isinstance(method.oracle, OverScenarios):
        many = method.oracle.scenario_bytes(footprint(scenarios, factors))
    total = rest + factors + inverse + many + carried + kept
    members = processes * total if processes > 1 else 0.0
    return Estimate(factors, inverse, many, carried, members, total + members, solver.name, reason, kept, repeats)


def footprint(problem: ScenarioProblem, factors: float) -> Footprint:
    """The numbers that the memory of scenarios grows with, given the bytes of the factors of one scenario."""
    (count, n), space = problem.inner_shape, problem.nominal.space
    points = space.cells.quadrature.points
    return Footprint(count, n, problem.outer_size, problem.at_once, _entries(problem.nominal), points, factors)


def _entries(problem: PDEProblem) -> float:
    """Number of entries in the derivative of the equation by the state at one time."""
    space = problem.space
    return ROW[space.domain.dim] * space.cells.dofs.shape[1] * space.size
