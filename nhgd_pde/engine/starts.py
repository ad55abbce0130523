"""Whether the start of a run is a solution already, judged by another oracle than the one of the run.

Some oracles cannot tell a gradient that is zero from a small one: their states are rough or sampled, or their first
evaluation takes a part of the scenarios or the nominal one alone. A judge evaluates the start as well as it takes to
tell. Over scenarios this is done roughly and with few of them at first, so that a start far from a solution costs
little: it is no solution as soon as the gradient is larger than its possible error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..linalg.factorisation import SingularMatrixError
from .bilevel import OuterProblem
from .loop import Iterate, Stopping, worst_residual
from .oracle import Accuracy, GrowingOracle, Oracle, SecondOrderOracle
from .outer.base import Evaluation, Feasible
from .scales import UNKNOWN, GradientScales, ScalesOracle

# The gradient is not zero where it is larger than its possible error by this factor.
_SIGNIFICANT = 2.0
# Relative errors of states and adjoints in the first evaluation over scenarios, and the smallest that are asked for.
_ROUGH, _FINE = 1e-2, 1e-13
# The next evaluation has errors of this share of the gradient, and is better by this factor at least.
_SHARE = 0.1


@dataclass(frozen=True)
class Verdict:
    """What is known of a start.

    Attributes:
        scales: of its gradient; the natural size is the one that a solution is judged by.
        goal: norm of the gradient of a solution.
        solution: the start with its evaluation, where it is a solution.
    """

    scales: GradientScales = UNKNOWN
    goal: float = 0.0
    solution: Iterate | None = None


@dataclass(frozen=True)
class _Judge:
    """The judge at the start of a problem."""

    problem: OuterProblem
    oracle: Oracle
    space: Feasible
    stopping: Stopping
    interrupted: Callable[[], bool]

    def verdict(self) -> Verdict:
        problem, oracle, stopping = self.problem, self.oracle, self.stopping
        u, v = problem.start()
        v = self.space.project(v)
        state = oracle.init(problem, u, v)
        evaluation, state = oracle.evaluate(problem, v, state, Accuracy(stopping.certificate, stopping.certificate))
        if not evaluation.finite or not isinstance(oracle, ScalesOracle):
            return Verdict()
        judge = replace(self, space=self.space.scaled(evaluation))
        scales = oracle.scales(problem, v, state, evaluation)
        norm = judge.space.stationarity(evaluation)
        if isinstance(oracle, GrowingOracle):
            if norm > scales.rounding and not bool(v.count_nonzero()):
                # The default start is looked at no further: its gradient has the size of those in the problem.
                return Verdict(replace(scales, natural=norm))
            return judge._over_scenarios(oracle, evaluation, state, scales)
        goal = max(scales.rounding, stopping.share * judge._size(evaluation, state, scales))
        return judge._judged(evaluation, state, scales, goal)

    def _over_scenarios(self, oracle: Any, evaluation: Evaluation, state: Any, scales: GradientScales) -> Verdict:
        """Look at more scenarios, or at the same ones better, until it is clear whether the gradient is small."""
        problem, v = self.problem, evaluation.v
        own = self._size(evaluation, state, scales)
        accuracy, grown = _ROUGH, oracle.grown(problem, state, 0.0, 0.0, 0.0)
        while grown is not None and not self.interrupted():
            evaluation, state = oracle.evaluate(problem, v, grown, Accuracy(accuracy, accuracy))
            if not evaluation.finite or self._significant(evaluation, scales):
                break
            scales = _larger(scales, oracle.scales(problem, v, state, evaluation))
            goal = max(scales.rounding, self.stopping.rtol * min(own, scales.natural))
            verdict = self._judged(evaluation, state, scales, goal)
            if verdict.solution is not None:
                return verdict
            if self._significant(evaluation, scales):
                break
            norm, left_out = self.space.stationarity(evaluation), evaluation.left_out
            grown = None
            if left_out > scales.natural * worst_residual(evaluation) or norm + left_out <= goal or accuracy <= _FINE:
                grown = oracle.grown(problem, state, 0.0, 0.0, 0.0)
            if grown is None and accuracy > _FINE:
                wanted = max(norm, goal) / max(scales.natural, evaluation.norm)
                accuracy, grown = max(_SHARE * min(wanted, accuracy), _FINE), state
        return Verdict(replace(scales, natural=self.space.stationarity(evaluation)))

    def _significant(self, evaluation: Evaluation, scales: GradientScales) -> bool:
        """Whether the gradient is larger than its possible error, whose scale is the natural size of the gradient."""
        if not scales.natural > 0.0:
            return False
        unsolved = scales.natural * (evaluation.state_error + evaluation.adjoint_error)
        error = unsolved + evaluation.left_out + max(scales.rounding, evaluation.rounding)
        return self.space.stationarity(evaluation) > _SIGNIFICANT * error

    def _judged(self, evaluation: Evaluation, state: Any, scales: GradientScales, goal: float) -> Verdict:
        """The verdict, if this evaluation is the last one."""
        evaluation = replace(evaluation, rounding=max(evaluation.rounding, scales.rounding))
        evaluation = self.space.completed(evaluation)
        norm = self.space.stationarity(evaluation)
        iterate = Iterate(0, evaluation, norm, 0.0, 1, state)
        if self.stopping.small(iterate, goal) and self.stopping.certified(iterate, goal):
            return Verdict(scales, goal, iterate)
        return Verdict(replace(scales, natural=norm))

    def _size(self, evaluation: Evaluation, state: Any, scales: GradientScales) -> float:
        """The size of a gradient to which that of a solution is relative; 0 where zero to rounding alone counts.

        The gradient of a quadratic function with its minimum at v has the size |H v| at the default start, zero.
        """
        if not self.stopping.restarts or not isinstance(self.oracle, SecondOrderOracle):
            return 0.0
        hessian = self.oracle.hessian(self.problem, evaluation.v, state)
        change = self.space.metric.dual_norm_estimate(hessian(evaluation.v)[None])
        return min(change, scales.natural) if math.isfinite(change) else 0.0


def judged_start(
    problem: OuterProblem, oracle: Oracle, space: Feasible, stopping: Stopping, interrupted: Callable[[], bool]
) -> Verdict:
    """Judge the start of a problem.

    Args:
        problem: the problem.
        oracle: the judge.
        space: the outer space.
        stopping: the options of the run.
        interrupted: asked between evaluations.
    """
    try:
        return _Judge(problem, oracle, space, stopping, interrupted).verdict()
    except SingularMatrixError:
        return Verdict()


def _larger(a: GradientScales, b: GradientScales) -> GradientScales:
    return GradientScales(max(a.natural, b.natural), max(a.rounding, b.rounding))
