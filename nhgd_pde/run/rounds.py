"""The rounds that enforce bounds of the state: each round is an outer problem without these bounds.

A round minimises the augmented Lagrangian of `objective.state_bounds`; then multipliers and penalties are updated.
Rounds are solved roughly until the bounds nearly hold, the last ones to the goal of the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..engine.loop import Iterate
from ..engine.oracle import Unsolved
from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import dot
from ..objective.state_bounds import Relaxation, StateBounds
from ..pde_problem import PDEProblem
from .outer_problem import nominal_of

if TYPE_CHECKING:
    from .outer_problem import OuterProblem

# A round is solved to the goal of the run where the violation is at most this many times the tolerance.
_NEAR = 10.0
# Ratio of the terms of the bounds to the rest of the objective beyond which the difference loses too many digits.
_LARGE = 1e3
# Largest number of rounds, many times more than usual: only a problem without a solution takes so many.
_MOST_ROUNDS = 60


def started(problem: OuterProblem) -> OuterProblem:
    """The problem of a stage, or of its first round if it has rounds."""
    if not problem.state_bounds:
        return problem
    nominal = nominal_of(problem)
    u, v = nominal.start()
    bounds = problem.state_bounds
    units = [penalty_unit(nominal, each, u, v) for each in bounds]
    if None in units and nominal.linear:
        # No coefficient changes a state that is zero. The state of the first control may be another one.
        solved = _solved(nominal, u, v)
        units = [unit or penalty_unit(nominal, each, solved, v) for unit, each in zip(units, bounds, strict=True)]
    return problem.relaxed(tuple(Relaxation.start(each, unit) for each, unit in zip(bounds, units, strict=True)))


def _solved(problem: PDEProblem, u: Tensor, v: Tensor) -> Tensor:
    """The state (1, n) of a linear equation; u as it is where the matrix is singular."""
    try:
        return u - problem.state_factors(u, v).solve(problem.residual(u, v))
    except SingularMatrixError:
        return u


def penalised(problem: OuterProblem) -> OuterProblem:
    """One problem in place of all rounds, with the last penalty of the path, for comparisons of methods."""
    begun = started(problem)
    return begun.relaxed(tuple(each.ended() for each in begun.relaxations)) if begun.relaxations else begun


def following_stage(before: OuterProblem, last: Iterate, problem: OuterProblem) -> OuterProblem:
    """The problem of a stage, starting from the end of the stage before and with the multipliers found there."""
    return _from(problem.relaxed(following_round(before, last).relaxations), last)


def following_round(problem: OuterProblem, last: Iterate) -> OuterProblem:
    """The problem of the next round, which starts from the iterate at which the last round has ended."""
    nominal, v = nominal_of(problem), last.evaluation.v
    state = problem.state(last.oracle.u, v)

    def unit(each: Relaxation) -> float | None:
        return penalty_unit(nominal, each.bounds, last.oracle.u[:1], v) if each.penalty == 0.0 else None

    return _from(problem.relaxed(tuple(each.after(state).begun(unit(each)) for each in problem.relaxations)), last)


def _from(problem: OuterProblem, last: Iterate) -> OuterProblem:
    """The problem, starting from the iterate at which another problem has ended."""
    if isinstance(problem, PDEProblem):
        return replace(problem, origin=(last.oracle.u, last.evaluation.v))
    nominal = problem.nominal
    return replace(problem, nominal=replace(nominal, origin=(nominal.start()[0], last.evaluation.v)))


def reported(problem: OuterProblem, iterate: Iterate) -> Iterate:
    """The iterate with the objective of the file, without the terms that enforce the bounds of the state."""
    evaluation = iterate.evaluation
    if not problem.relaxations or isinstance(iterate.oracle, Unsolved) or not evaluation.finite:
        return iterate
    surplus = problem.surplus(iterate.oracle.u, evaluation.v)
    value = evaluation.value - surplus
    if not abs(surplus) <= _LARGE * abs(value):
        # The difference has lost digits. The value of the file at the same state has not.
        value = problem.file_value(iterate.oracle.u, evaluation.v)
    return replace(iterate, evaluation=replace(evaluation, value=value))


def settled(problem: OuterProblem) -> bool:
    """Whether the bounds held at the end of the last round."""
    return all(each.settled for each in problem.relaxations)


def nearly(problem: OuterProblem) -> bool:
    """Whether the bounds nearly held at the end of the last round."""
    return all(each.left <= _NEAR * each.tolerance for each in problem.relaxations)


def impossible(problem: OuterProblem, rounds: int, last: Iterate) -> str:
    """A sentence on why another round would be of no use; empty where it may be of use."""
    state = problem.state(last.oracle.u, last.evaluation.v)
    for each in problem.relaxations:
        reason = each.impossible(state)
        if reason:
            return reason
        if not each.settled and each.penalty == 0.0:
            return f"no control moves the state towards its bounds; {each.sentence(state, last.evaluation.v)}"
    if rounds >= _MOST_ROUNDS and not settled(problem):
        return f"{rounds} rounds of multipliers were not enough"
    return ""


def restored(problem: OuterProblem, saved: list[Mapping[str, Any]]) -> OuterProblem:
    """The problem of a round, from its relaxations in a checkpoint."""
    device = nominal_of(problem).equation.lift.device
    return problem.relaxed(
        tuple(
            Relaxation(bounds, **{**each, "multiplier": each["multiplier"].to(device)})
            for bounds, each in zip(problem.state_bounds, saved, strict=True)
        )
    )


def saved(problem: OuterProblem) -> list[dict[str, Any]]:
    """The relaxations as they are saved in a checkpoint."""
    names = ("multiplier", "penalty", "first", "left", "tolerance", "seen", "stalled")
    return [{name: getattr(each, name) for name in names} for each in problem.relaxations]


def penalty_unit(problem: PDEProblem, bounds: StateBounds, u: Tensor, v: Tensor) -> float | None:
    """The factor that gives a penalty the curvature of the objective; None where it cannot be found.

    It is taken along the change d of the controls that moves the bounded state most evenly:

        |d . Phi'' d| / |du|^2 + |Phi' d| / (|du| |1| size),   du the change of the state,

    with norms over the bounded region, and the size of the bounds. The second part is for objectives without curvature.
    """
    equation, m = problem.equation, problem.control.physical(v)
    whole = u.new_zeros(len(u), equation.size)
    whole[:, bounds.indices] = torch.where(bounds.given, 0.0, bounds.weights)
    try:
        factors = problem.state_factors(u, v)
        adjoint = factors.solve_transposed(equation.restrict(whole))
        direct = problem.control.pull_back(equation.restrict_data(whole, m))
        slope = direct - problem.control_product_transposed(u, v, adjoint)
        d = problem.outer_metric.gradient(slope[None])[0]
        du = -factors.solve(problem.control_product(u, v, d))
    except SingularMatrixError:
        return None
    moved = equation.extend(du, m, problem.control.physical(d))[:, bounds.indices]
    square = float((moved.square() * bounds.weights).sum())
    if not 0.0 < square < math.inf:
        return None
    for_u, for_v = problem.outer_second_derivatives(u, v, du, d)
    by_u, by_v = problem.outer_derivatives(u, v)
    unit = abs(dot(for_u, du) + dot(for_v, d)) / square
    size = bounds.size(bounds.values(problem.state(u, v)))
    if size > 0.0:
        rate = abs(dot(by_u, du) + dot(by_v, d))
        rate += 0.0 if problem.l1_weights is None else dot(problem.l1_weights, d.abs())
        unit += rate / (square**0.5 * float(bounds.weights.sum()) ** 0.5 * size)
    return unit if 0.0 < unit < math.inf else None
