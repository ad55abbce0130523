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

from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from .bilevel import OuterProblem
from .loop import Iterate, LoopState, Stopping, worst_residual
from .oracle import Accuracy, GrowingOracle, Oracle, SecondOrderOracle
from .outer.base import Evaluation, Feasible, OuterMethod
from .scales import UNKNOWN, GradientScales, ScalesOracle

# The gradient is not zero where it is larger than its possible error by this factor: sampling errors that are told by a
# few scenarios may be too small by a factor of three.
_SIGNIFICANT = 5.0
# A gradient larger than this share of its size is not one of a solution, however few scenarios tell.
_FAR = 0.3
# A nominal gradient smaller than that of other scenarios by this factor tells no size.
_TOLD = 1e-6
# States and adjoints with smaller errors than this are not rough.
_KNOWN = 1e-6
# Relative errors of states and adjoints in the first evaluation over scenarios, and the smallest that are asked for.
_ROUGH, _FINE = 1e-2, 1e-13
# The next evaluation has errors of this share of the gradient, and is better by this factor at least.
_SHARE = 0.1
# The size of the gradient that a run had at its first start is known from its end up to about this factor.
_SLACK = 3.0


@dataclass(frozen=True)
class Verdict:
    """What is known of a start.

    Attributes:
        scales: of its gradient.
        goal: norm of the gradient at which the run may end; 0 where the judge knows of none.
        iterate: the start with the last evaluation of the judge; None where it is far from a solution, or unknown.
        solved: the start is a solution.
    """

    scales: GradientScales = UNKNOWN
    goal: float = 0.0
    iterate: Iterate | None = None
    solved: bool = False


def judged_start(
    loop: LoopState,
    problem: OuterProblem,
    oracle: Oracle,
    judge: Oracle,
    outer: OuterMethod,
    space: Feasible,
    stopping: Stopping,
    interrupted: Callable[[], bool],
) -> tuple[LoopState, Iterate]:
    """The loop at a start that has been judged, and the start as it is told.

    Where the start is a solution, the loop has the evaluation of the judge, and what is told has its states too, which
    belong to the start unlike those of a rough oracle. Where it is near a solution, an oracle of the same kind goes on
    from what the judge has found.

    Args:
        loop: the loop after the first evaluation.
        problem, outer, space, stopping, interrupted: see `minimise`.
        oracle: the oracle of the run.
        judge: the judge.
    """
    first = loop.first
    if isinstance(oracle, ScalesOracle) and not _open(first.evaluation, first.gradient_norm, loop.scales):
        return loop, first
    verdict = _verdict(problem, judge, space, stopping, interrupted)
    found, scales = verdict.iterate, verdict.scales
    scales = replace(loop.scales, rounding=max(loop.scales.rounding, scales.rounding))
    # A judge of growing batches is the oracle of the run with other batches; any other one has states of another kind.
    continued = found is not None and isinstance(oracle, GrowingOracle) and type(oracle) is type(judge)
    if found is None or not (verdict.solved or continued):
        return replace(loop, scales=scales), first
    knowledge = found.oracle if continued else first.oracle
    first = replace(found, oracle=knowledge, evaluations=first.evaluations + found.evaluations)
    scales = verdict.scales if verdict.solved else replace(scales, natural=found.gradient_norm)
    begun = outer.init(replace(space, unit=loop.unit), first.evaluation)
    loop = replace(
        loop, first=first, current=first, outer=begun, knowledge=knowledge, scales=scales, solved=verdict.goal
    )
    return loop, replace(first, oracle=found.oracle)


def _verdict(
    problem: OuterProblem, oracle: Oracle, space: Feasible, stopping: Stopping, interrupted: Callable[[], bool]
) -> Verdict:
    if not isinstance(oracle, ScalesOracle):
        return Verdict()
    u, v = problem.start()
    v, accuracy = space.project(v), Accuracy(stopping.certificate, stopping.certificate)
    try:
        evaluation, state = oracle.evaluate(problem, v, oracle.init(problem, u, v), accuracy)
        if not evaluation.finite:
            return Verdict()
        judge = _Judge(problem, oracle, space.scaled(evaluation), stopping, interrupted)
        scales = oracle.scales(problem, v, state, evaluation)
        if isinstance(oracle, GrowingOracle):
            norm = judge.space.stationarity(evaluation)
            return judge.over_scenarios(v, norm, state, scales) if _open(evaluation, norm, scales) else Verdict(scales)
        goal = max(scales.rounding, stopping.share * min(judge.size(v, state), scales.natural))
        found = judge.judged(evaluation, state, scales, goal)
        if found.solved or not _open(evaluation, judge.space.stationarity(evaluation), scales):
            return found
        better, state = oracle.evaluate(problem, v, state, Accuracy(_FINE, _FINE))
        return judge.judged(better, state, scales, goal) if better.finite else found
    except SingularMatrixError:
        return Verdict()


def _open(first: Evaluation, norm: float, scales: GradientScales) -> bool:
    """Whether the start may be a solution for all that a first evaluation tells.

    Where scenarios were left out, zero, the default start, is a solution only if its gradients are zero. Another start
    may be the end of another run, where the gradient of the nominal scenario has no reason to be small.
    """
    if first.validated and first.sampling_error == 0.0:
        # A rough evaluation of all scenarios, or one without scales, follows a nominal gradient of zero.
        worst = worst_residual(first)
        unknown = worst > _KNOWN or scales.natural == 0.0
        return unknown or norm <= max(scales.rounding, _SIGNIFICANT * worst * scales.natural)
    return norm <= scales.rounding or bool(first.v.count_nonzero())


@dataclass(frozen=True)
class _Judge:
    """The judge at the start of a problem."""

    problem: OuterProblem
    oracle: Any
    space: Feasible
    stopping: Stopping
    interrupted: Callable[[], bool]

    def over_scenarios(self, v: Tensor, norm: float, state: Any, scales: GradientScales) -> Verdict:
        """Look at more scenarios, or at the same ones better, until it is clear whether the gradient is small."""
        problem, oracle, size = self.problem, self.oracle, self.size(v, state)
        accuracy, grown = _ROUGH, oracle.grown(problem, state, 0.0, 0.0, 0.0)
        verdict = Verdict(scales)
        zero = norm <= scales.rounding
        if self.space.constraint is not None and not zero:
            return verdict
        while grown is not None and not self.interrupted():
            evaluation, state = oracle.evaluate(problem, v, grown, Accuracy(accuracy, accuracy))
            if not evaluation.finite:
                break
            goal = self._goal(size, scales)
            if not self._significant(evaluation, scales, goal):
                scales = _larger(scales, oracle.scales(problem, v, state, evaluation))
                goal = self._goal(size, scales)
            found = self.judged(evaluation, state, scales, goal)
            if found.solved:
                return found
            norm = self.space.stationarity(evaluation)
            # The nominal scenario tells no size where its state is zero.
            told = not zero and size > _TOLD * scales.natural
            far = told and norm > max(_FAR * min(size, scales.natural), goal)
            if far or self._significant(evaluation, scales, goal):
                # More than a first look has shown that the start is near a solution: the run goes on from there.
                return found if verdict.iterate is not None else Verdict(scales)
            verdict, left_out = found, evaluation.left_out
            grown = None
            if left_out > scales.natural * worst_residual(evaluation) or norm + left_out <= goal or accuracy <= _FINE:
                grown = oracle.grown(problem, state, 0.0, 0.0, 0.0)
            if grown is None and accuracy > _FINE:
                whole = max(scales.natural, evaluation.norm)
                # A gradient of zero, of a natural size of zero, asks for nothing.
                wanted = max(norm, goal) / whole if whole > 0.0 else accuracy
                accuracy, grown = max(_SHARE * min(wanted, accuracy), _FINE), state
        return verdict

    def judged(self, evaluation: Evaluation, state: Any, scales: GradientScales, goal: float) -> Verdict:
        """The verdict, if this evaluation is the last one."""
        stopping, rounding = self.stopping, max(evaluation.rounding, scales.rounding)
        evaluation = replace(self.space.completed(evaluation), rounding=rounding)
        iterate = Iterate(0, evaluation, self.space.stationarity(evaluation), 0.0, 1, state)
        slack = max(goal, _SLACK * goal if goal > scales.rounding else 0.0)
        if stopping.small(iterate, slack) and stopping.certified(iterate, slack):
            return Verdict(scales, slack, iterate, solved=True)
        return Verdict(scales, goal, iterate)

    def size(self, v: Tensor, state: Any) -> float:
        """The size of a gradient to which the goal is relative; 0 where only a gradient of zero is a solution.

        The gradient of a quadratic function with its minimum at v has the size |H v| at the default start, zero.
        """
        # Runs with a constraint end where the design has settled, and not by the gradient.
        told = self.stopping.restarts and self.space.constraint is None
        if not (told and isinstance(self.oracle, SecondOrderOracle)):
            return 0.0
        product = self.oracle.hessian(self.problem, v, state)(v)
        found = self.space.metric.dual_norm_estimate(product[None])
        return found if math.isfinite(found) else 0.0

    def _goal(self, size: float, scales: GradientScales) -> float:
        return max(scales.rounding, self.stopping.rtol * min(size, scales.natural))

    def _significant(self, evaluation: Evaluation, scales: GradientScales, goal: float) -> bool:
        """Whether the gradient is larger than its goal and than its possible error, whose scale is its natural size."""
        if not scales.natural > 0.0:
            return False
        unsolved = scales.natural * (evaluation.state_error + evaluation.adjoint_error)
        error = unsolved + evaluation.left_out + max(scales.rounding, evaluation.rounding)
        return self.space.stationarity(evaluation) > max(_SIGNIFICANT * error, _SLACK * goal)


def _larger(a: GradientScales, b: GradientScales) -> GradientScales:
    return GradientScales(max(a.natural, b.natural), max(a.rounding, b.rounding))
