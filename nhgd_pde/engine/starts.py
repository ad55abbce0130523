"""The decision by another oracle whether the start of a run is a solution already.

Some oracles cannot tell a gradient that is zero from a small one: their states are rough or sampled, or their first
evaluation takes a part of the scenarios or the nominal one alone. A judge evaluates the start as accurately as the
decision needs. Over scenarios this is done roughly and with few of them at first, so that a start far from a solution
costs little: it is no solution as soon as the gradient is larger than its possible error.
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
from .outer.base import Feasible
from .outer.reduced_objective import Evaluation
from .scales import UNKNOWN, GradientScales, ScalesOracle
from .search import Search

# The gradient is not zero where it is larger than its possible error by this factor: sampling errors that are estimated
# from a few scenarios may be too small by a factor of three.
_SIGNIFICANT = 5.0
# A start whose gradient is larger than this share of its size is no solution, even if few scenarios were used.
_FAR = 0.3
# A nominal gradient below this share of the natural size of the gradients of other scenarios gives no size.
_USABLE = 1e-6
# States and adjoints with relative errors below this are not rough.
_KNOWN = 1e-6
# Relative errors of states and adjoints in the first evaluation over scenarios, and the smallest that are asked for.
_ROUGH, _FINE = 1e-2, 1e-13
# The next evaluation has errors of at most this share of the gradient, and of the errors of the last one.
_SHARE = 0.1
# At the end of a run, the size of the gradient at its first start is known up to about this factor.
_SLACK = 3.0


@dataclass(frozen=True)
class Verdict:
    """The result of judging a start.

    Attributes:
        scales: scales of its gradient.
        goal: norm of the gradient at which the run may end; 0 where the judge knows of none.
        iterate: the start with the last evaluation of the judge; None where it is far from a solution, or unknown.
        solved: the start is a solution.
    """

    scales: GradientScales = UNKNOWN
    goal: float = 0.0
    iterate: Iterate | None = None
    solved: bool = False


def judged_start(loop: LoopState, search: Search, judge: Oracle) -> tuple[LoopState, Iterate]:
    """The loop at a start that has been judged, and the start as the callback sees it.

    If the start is a solution, the loop has the evaluation of the judge, and the callback sees the states of the judge:
    unlike those of a rough oracle they belong to the start. If it is near a solution, an oracle of the same kind as the
    judge goes on from its states.
    """
    first, oracle = loop.first, search.oracle
    if isinstance(oracle, ScalesOracle) and not _open(first.evaluation, first.gradient_norm, loop.scales):
        return loop, first
    verdict = _verdict(search, judge)
    found, scales = verdict.iterate, verdict.scales
    scales = replace(loop.scales, rounding=max(loop.scales.rounding, scales.rounding))
    # A judge of growing batches is the oracle of the run with other batches; any other one has states of another kind.
    continued = found is not None and isinstance(oracle, GrowingOracle) and type(oracle) is type(judge)
    if found is None or not (verdict.solved or continued):
        return replace(loop, scales=scales), first
    knowledge = found.oracle if continued else first.oracle
    first = replace(found, oracle=knowledge, evaluations=first.evaluations + found.evaluations)
    scales = verdict.scales if verdict.solved else replace(scales, natural=found.gradient_norm)
    begun = search.outer.init(replace(search.space, unit=loop.unit), first.evaluation)
    loop = replace(loop, first=first, current=first, outer=begun, knowledge=knowledge)
    return replace(loop, scales=scales, solved=verdict.goal), replace(first, oracle=found.oracle)


def _verdict(search: Search, oracle: Oracle) -> Verdict:
    """The verdict of an oracle on the start."""
    if not isinstance(oracle, ScalesOracle):
        return Verdict()
    problem, certificate = search.problem, search.stopping.certificate
    u, v = problem.start()
    v = search.space.project(v)
    try:
        evaluation, state = oracle.evaluate(problem, v, oracle.init(problem, u, v), Accuracy(certificate, certificate))
        if not evaluation.finite:
            return Verdict()
        judge = _Judge(problem, oracle, search.space.scaled(evaluation), search.stopping, search.interrupted)
        scales = oracle.scales(problem, v, state, evaluation)
        if isinstance(oracle, GrowingOracle):
            norm = judge.space.stationarity(evaluation)
            return judge.over_scenarios(v, norm, state, scales) if _open(evaluation, norm, scales) else Verdict(scales)
        goal = max(scales.rounding, judge.stopping.share * min(judge.size(v, state), scales.natural))
        found = judge.judged(evaluation, state, scales, goal)
        if found.solved or not _open(evaluation, judge.space.stationarity(evaluation), scales):
            return found
        better, state = oracle.evaluate(problem, v, state, Accuracy(_FINE, _FINE))
        return judge.judged(better, state, scales, goal) if better.finite else found
    except SingularMatrixError:
        return Verdict()


def _open(first: Evaluation, norm: float, scales: GradientScales) -> bool:
    """Whether the start may be a solution, as far as a first evaluation shows.

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
        """Take more scenarios, or solve for the same ones better, until it is clear whether the gradient is small."""
        zero = norm <= scales.rounding
        verdict = Verdict(scales)
        if self.space.constraint is not None and not zero:
            return verdict
        size, accuracy = self.size(v, state), _ROUGH
        grown = self._grown(state)
        while grown is not None and not self.interrupted():
            evaluation, state = self.oracle.evaluate(self.problem, v, grown, Accuracy(accuracy, accuracy))
            if not evaluation.finite:
                break
            goal = self._goal(size, scales)
            if not self._significant(evaluation, scales, goal):
                scales = _larger(scales, self.oracle.scales(self.problem, v, state, evaluation))
                goal = self._goal(size, scales)
            found = self.judged(evaluation, state, scales, goal)
            if found.solved:
                return found
            if self._far(evaluation, 0.0 if zero else size, scales, goal):
                # More than a first look has shown that the start is near a solution: the run goes on from there.
                return found if verdict.iterate is not None else Verdict(scales)
            verdict = found
            grown, accuracy = self._next(evaluation, state, scales, goal, accuracy)
        return verdict

    def _grown(self, state: Any) -> Any | None:
        """The state with more scenarios, as if the gradient were zero; None where there are no more."""
        return self.oracle.grown(self.problem, state, 0.0, 0.0, 0.0)

    def _far(self, evaluation: Evaluation, size: float, scales: GradientScales, goal: float) -> bool:
        """Whether the start is no solution; `size` is that of a nominal gradient, or zero."""
        # The nominal scenario gives no size where its state is zero.
        usable = size > _USABLE * scales.natural
        large = self.space.stationarity(evaluation) > max(_FAR * min(size, scales.natural), goal)
        return (usable and large) or self._significant(evaluation, scales, goal)

    def _next(
        self, evaluation: Evaluation, state: Any, scales: GradientScales, goal: float, accuracy: float
    ) -> tuple[Any | None, float]:
        """The state of the next evaluation, None where there is nothing left to do, and its accuracy.

        More scenarios are used where the sampling error is the larger one; else the same ones are solved for better.
        """
        norm, left_out = self.space.stationarity(evaluation), evaluation.left_out
        sampled = left_out > scales.natural * worst_residual(evaluation) or norm + left_out <= goal
        grown = self._grown(state) if sampled or accuracy <= _FINE else None
        if grown is not None or accuracy <= _FINE:
            return grown, accuracy
        whole = max(scales.natural, evaluation.norm)
        # A gradient of zero, of a natural size of zero, needs no other accuracy.
        wanted = max(norm, goal) / whole if whole > 0.0 else accuracy
        return state, max(_SHARE * min(wanted, accuracy), _FINE)

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
        relative = self.stopping.restarts and self.space.constraint is None
        if not (relative and isinstance(self.oracle, SecondOrderOracle)):
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
