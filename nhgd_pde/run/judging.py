"""Judges the answer of a run over scenarios, and fits the rounding of the risk measure to their spread."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..engine.curvature.factored import Factored
from ..engine.inner_loop import InnerOptions
from ..engine.loop import Stopping
from ..engine.minimise import minimise
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Accuracy
from ..engine.outer.lbfgs import LBFGS
from ..engine.outer.mma import MMA
from ..engine.scenarios.part_equations import SharedInverse, Tolerances
from ..engine.scenarios.team import ALONE, Team, Work
from ..engine.search import outer_space
from ..linalg.factorisation import SingularMatrixError
from ..pde_problem import PDEProblem
from ..problem_file.errors import ProblemError
from ..scenario_problem import ScenarioProblem
from ..uncertainty.direction import main_direction
from ..uncertainty.fresh import FreshSample
from .judgement import STATE_ERROR, Judgement

if TYPE_CHECKING:
    from ..building.blueprint import Blueprint
    from .outer_problem import OuterProblem

# Number of scenarios whose spread decides how wide a kink is rounded.
_MOST_FITTED = 256
# Bounds of the number of fresh scenarios that judge an answer where the file does not say: between these bounds there
# are as many as the sample has.
_LEAST_FRESH, _MOST_FRESH = 100, 1000


def scenario_values(
    problem: ScenarioProblem, v: Tensor, parts: Callable[[int, int], PDEProblem], count: int, team: Team = ALONE
) -> np.ndarray:
    """The objective (count,) in some scenarios, which the ranks of a team share.

    Args:
        v: (p,) the control.
        parts: (first scenario, number of scenarios) -> the problem of these scenarios.
    """
    nominal = problem.nominal
    method = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    nominal_evaluation, state = method.evaluate(
        nominal, v, method.init(nominal, nominal.start()[0], v), Accuracy(1e-8, 1e-8)
    )
    if not nominal_evaluation.finite:
        return np.full(count, math.nan)
    length = nominal.inner_metric.norm(state.u)
    start, own = team.portion(count)
    found, work = [v[:0]], Work(problem.counts)
    with team.together():
        for first in range(start, start + own, problem.at_once):
            size = min(problem.at_once, start + own - first)
            part = parts(first, size)
            inverse: Any = state.inner.curvature
            solver = SharedInverse(inverse, Tolerances(STATE_ERROR, STATE_ERROR, length, length))
            solved = solver.states(part, v, state.u.expand(size, -1).clone())
            values = part.scenario_values(solved.solution, v)
            found.append(torch.full_like(values, math.nan) if solved.message else values)
    every = team.joined(torch.cat(found), torch.arange(start, start + own), count)
    work.by_all(team.summed([work.here(v)], v)[0])
    return every.cpu().numpy() + nominal.control_value(v) + outer_space(nominal).l1(v)


def judged(
    problem: OuterProblem, v: Tensor, scenarios: Blueprint, streamed: bool, team: Team = ALONE
) -> Judgement | None:
    """The judgement at the end of a run, of a control (p,) by the scenarios of the sample and by fresh ones.

    The scenarios of the sample tell in which direction of the random variables the rare scenarios that matter lie.
    Fresh scenarios are drawn in that direction more often. If such scenarios cannot be solved, or have coefficients out
    of their range, the fresh scenarios are drawn as the random inputs are distributed.

    Args:
        streamed: the control was found with scenarios of a stream.

    Raises:
        ProblemError: a coefficient of a scenario is out of its range.
        SingularMatrixError: a scenario cannot be solved.
    """
    if isinstance(problem, PDEProblem):
        return None
    given, confidence = scenarios.spec.validation, scenarios.spec.confidence
    fresh = min(max(len(problem.z), _LEAST_FRESH), _MOST_FRESH) if given == "auto" else int(given)
    problem = problem.relaxed(())
    seen = _sample_values(problem, v, len(problem.z), team)
    drawn = problem.fresh(fresh, True)
    direction = main_direction(problem.z, seen, drawn.distributions)
    if direction is not None:
        drawn = problem.fresh(fresh, True, direction)
    try:
        others = _fresh_values(problem, v, drawn, team)
    except (ProblemError, SingularMatrixError):
        others = np.full(fresh, math.nan)
    if drawn.wide and not np.isfinite(others).all():
        drawn = problem.fresh(fresh, False)
        others = _fresh_values(problem, v, drawn, team)
    weights = problem.weights.cpu().numpy()
    return Judgement(problem.risk, seen, weights, others, drawn, confidence, problem.z, scenarios.inputs, streamed)


def _sample_values(problem: ScenarioProblem, v: Tensor, count: int, team: Team) -> np.ndarray:
    """The objective in the first scenarios of the sample."""
    every = torch.arange(count)
    return scenario_values(problem, v, lambda first, size: problem.part(every[first : first + size]), count, team)


def _fresh_values(problem: ScenarioProblem, v: Tensor, drawn: FreshSample, team: Team) -> np.ndarray:
    def part(first: int, size: int) -> PDEProblem:
        return problem.make(drawn.z[first : first + size], np.arange(first, first + size))

    return scenario_values(problem, v, part, len(drawn.z), team) if len(drawn.z) else np.zeros(0)


def fitted(problem: OuterProblem, team: Team = ALONE) -> OuterProblem:
    """The problem with the kinks of its risk measure rounded over a share of the spread of the objective.

    The spread is that of the first scenarios of the sample, at the optimum of the nominal problem to some digits.
    """
    if isinstance(problem, PDEProblem) or problem.risk.linear:
        return problem
    nominal, count = problem.nominal, min(len(problem.z), _MOST_FITTED)
    method = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    outer = MMA() if nominal.constraint is not None else LBFGS()
    found = minimise(nominal, method, outer, Stopping(iterations=30, rtol=1e-2))
    v = found.last.evaluation.v
    try:
        values = _sample_values(problem, v, count, team)
    except SingularMatrixError:
        # At the optimum of the nominal scenario a coefficient of another scenario is out of its range.
        return problem
    if not np.isfinite(values).all():
        return problem
    weights = problem.weights[:count] / problem.weights[:count].sum()
    return replace(problem, risk=problem.risk.fitted(torch.from_numpy(values).to(weights), weights))
