"""The state of the outer loop, its stopping rules, and its result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from .optimality_gap import gap_of
from .oracle import OracleState, Unsolved
from .outer.base import OuterState
from .outer.reduced_objective import Evaluation
from .scales import UNKNOWN, GradientScales

if TYPE_CHECKING:
    from .admissible import Edge

# A start is nearly a solution where its gradient is below 1e-6 of its natural size: a hundred times 1e-8, the default
# goal, so that the end of a run with the default goal is recognised. A looser goal does not loosen this test.
_SOLVED = 1e-8
_NEAR = 100.0

Status = Literal["converged", "stopped", "interrupted", "failed"]


@dataclass(frozen=True)
class Nearness:
    """How near an objective is to its optimum.

    Attributes:
        gap: an estimate of the objective minus its optimum, or a bound of it.
        goal: what it has to be for a run to end; 0 where it is not known yet.
    """

    gap: float
    goal: float

    @property
    def reached(self) -> bool:
        return self.gap <= self.goal


@dataclass(frozen=True)
class Stopping:
    """When to stop.

    Attributes:
        iterations: largest number of outer iterations.
        rtol, atol: goals for the norm of the gradient, relative to the first one and absolute.
        certificate: both relative residuals (state and adjoint) must be at most this as well. Where scenarios were
            left out, a bound of the gradient of all of them has to reach the goal in place of both: the norm of the
            estimate, twice its standard error, and the errors of states and adjoints.
        change: two steps in a row that change no component of v by more than this also end the run; None: they do not.
            A single small step may have been damped for another reason than an optimum.
        restarts: the start may be the end of another run, which is then recognised as a solution. False where stages
            follow each other: the goals alone decide there.
        reduction: largest goal relative to the first gradient, whatever the rounding errors are; with 1 the start may
            be good enough.
        roughest: largest relative residual of the systems of an evaluation, however large the gradient is.
        reference: norm of the gradient that rtol is relative to; 0: that of the first gradient. A run that starts near
            its end takes the norm at another start, so that it ends where a run from there does.
        nearness: how near an objective is to its optimum, and has to be for the run to end as well. None: a small
            gradient alone ends the run.
        scaled: take the natural size of the gradient at the start into account, which takes two solves. False where the
            goals need it neither to recognise a start that is a solution nor for rounding errors.
    """

    iterations: int = 200
    rtol: float = 1e-8
    atol: float = 0.0
    certificate: float = 1e-8
    change: float | None = None
    roughest: float = 1e-3
    restarts: bool = True
    reduction: float = 1.0
    reference: float = 0.0
    nearness: Callable[[Iterate], Nearness] | None = None
    scaled: bool = True

    @property
    def share(self) -> float:
        """The goal of a start that is a solution, relative to the natural size of its gradient."""
        return min(self.rtol, _SOLVED)

    def unit(self, first: float) -> float:
        """The norm of the gradient that rtol is relative to, given the norm of the first gradient."""
        return self.reference or first

    def goal(self, first: float, scales: GradientScales) -> float:
        """The norm of the gradient to reach, given the norm of the first gradient.

        A start is (nearly) a solution if its gradient consists of rounding errors, or is nearly as small, relative to
        its natural size, as at a solution. There the natural size takes the place of the first norm, so that a run that
        begins where another run has ended has nothing left to do.
        """
        goal = max(self.rtol * self.unit(first), self.atol)
        if self.reduction < 1.0:
            return min(goal, self.reduction * first)
        if first <= scales.rounding:
            return max(goal, scales.rounding)
        if self.restarts and first <= _NEAR * self.share * scales.natural:
            return max(goal, self.share * scales.natural)
        return goal

    def small(self, iterate: Iterate, goal: float) -> bool:
        """Whether the gradient has reached the goal, as far as the scenarios in use show."""
        evaluation = iterate.evaluation
        doubt = evaluation.gradient_error if evaluation.sampling_error > 0.0 else 0.0
        return evaluation.validated and iterate.gradient_norm + doubt <= goal

    def certified(self, iterate: Iterate, goal: float) -> bool:
        """Whether the gradient is known well enough."""
        evaluation = iterate.evaluation
        if evaluation.blended:
            return False
        if evaluation.sampling_error > 0.0:
            return self.small(iterate, goal)
        return evaluation.validated and worst_residual(evaluation) <= self.certificate

    def near(self, iterate: Iterate) -> bool:
        """Whether the objective is near enough to its optimum."""
        return self.nearness is not None and self.nearness(iterate).reached

    def unchanged(self, iterate: Iterate) -> bool:
        return self.change is not None and max(iterate.change, iterate.change_before) <= self.change


@dataclass(frozen=True)
class Iterate:
    """One accepted outer iterate, which the callback sees and the history has.

    `change` is the largest change of a component of v by the last step, `change_before` that by the step before it.
    `trail` has objective and norm of the gradient of the last iterates before this one.
    """

    iteration: int
    evaluation: Evaluation
    gradient_norm: float
    step: float
    evaluations: int
    oracle: OracleState
    change: float = math.inf
    change_before: float = math.inf
    trail: tuple[tuple[float, float], ...] = ()

    @property
    def gap(self) -> float:
        """An estimate of the objective minus its optimum."""
        return gap_of((*self.trail, (self.evaluation.value, self.gradient_norm)))

    def without_oracle(self) -> Iterate:
        """The iterate without what the oracle knew there, which may hold factors."""
        return replace(self, oracle=Unsolved(self.evaluation.v[:0]))


@dataclass(frozen=True)
class Minimum:
    """The result of the loop.

    Attributes:
        last: the last accepted iterate; with status `failed`, the last good one.
        first: the starting point.
        status: `converged`, `stopped` (out of iterations, or no further progress), `interrupted` or `failed`.
        message: a sentence that says why.
    """

    last: Iterate
    first: Iterate
    status: Status
    message: str


@dataclass(frozen=True)
class LoopState:
    """The state of the loop between two evaluations: with the problem and the options, all that it needs to continue.

    Attributes:
        first, current: the starting point and the current iterate.
        outer: the state of the outer method.
        knowledge: the oracle's state after the last evaluation.
        evaluations: number of evaluations so far.
        bad: number of evaluations that failed since the current iterate.
        sensitivity: `Evaluation.sensitivity` at the last point that could be evaluated.
        unit: the unit of the outer space, see `Feasible`.
        scales: the natural size of the gradient at the start, and its rounding errors.
        solved: norm of the gradient of a solution, where a judge has found that the start is one; else 0.
        tried: (p,) the last point that was evaluated; None where it is the iterate.
        edge, crossed: the places where steps from the current iterate, and the step to it, would have left the
            admissible set.
    """

    first: Iterate
    current: Iterate
    outer: OuterState
    knowledge: OracleState
    evaluations: int
    bad: int
    sensitivity: float
    unit: float = 1.0
    scales: GradientScales = UNKNOWN
    solved: float = 0.0
    tried: Tensor | None = None
    edge: Edge | None = None
    crossed: Edge | None = None


def worst_residual(evaluation: Evaluation) -> float:
    """The larger one of the relative residuals of the state and the adjoint system; NaN where one is not known."""
    residuals = evaluation.state_error, evaluation.adjoint_error
    return math.nan if any(map(math.isnan, residuals)) else max(residuals)
