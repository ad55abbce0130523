"""The outer loop that every method shares: evaluate, accept or shorten the step, stop for a stated reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from .admissible import ended_at_edge, explained, held_back
from .bilevel import InnerEquation, OuterProblem, constraint_of, l1_weights_of
from .loop import Iterate, LoopState, Minimum, Stopping, worst_residual
from .oracle import Accuracy, GrowingOracle, Oracle, SecondOrderOracle, Unsolved
from .outer.base import Evaluation, Feasible, HessianProduct, OuterMethod, failed_evaluation, objection_of
from .reasons import converged, diverged, out_of_iterations, out_of_range, standing, uncertified
from .scales import UNKNOWN, GradientScales, ScalesOracle
from .starts import judged_start

# With a tenth of the step each time this is hopeless; a line search gives up a little later.
_MOST_BAD_EVALUATIONS = 20
# The objective has diverged where it has grown by this factor more than its value and slope at the start explain.
_GROWN = 1e6
# A start is no solution where the objective, and the control, may change by more than this share of themselves.
_OPEN = 1e-5


@dataclass(frozen=True)
class _Search:
    """The data that do not change from one evaluation to the next, and the two scales that are learnt on the way.

    Attributes:
        space: the outer space, with the unit of the largest curvature seen.
        scales: the natural size of the gradient at the start, and its rounding errors.
        goal: the norm of the gradient at which the run ends.
    """

    problem: OuterProblem
    oracle: Oracle
    stopping: Stopping
    interrupted: Callable[[], bool]
    space: Feasible
    scales: GradientScales = UNKNOWN
    goal: float = 0.0

    def evaluate(self, v: Tensor, knowledge: Any, accuracy: Accuracy) -> tuple[Evaluation, Any]:
        try:
            evaluation, knowledge = self.oracle.evaluate(self.problem, v, knowledge, accuracy)
        except SingularMatrixError as singular:
            # For every method this means that the step was too long: the matrix has no factors there.
            evaluation = failed_evaluation(v, str(singular))
        if not evaluation.finite:
            # One number that is not finite spoils all: no outer method may take the others for good.
            return replace(evaluation, value=math.nan), knowledge
        rounding = max(evaluation.rounding, self.scales.rounding)
        return replace(self.space.completed(evaluation), rounding=rounding), knowledge

    def last(self, iterate: Iterate) -> bool:
        """Whether the run would end at an iterate if the iterate were certified."""
        return self.stopping.small(iterate, self.goal) or self.stopping.unchanged(iterate)

    def certified(self, iterate: Iterate) -> bool:
        return self.stopping.certified(iterate, self.goal)

    def reevaluated(self, iterate: Iterate, evaluation: Evaluation, knowledge: Any) -> Iterate:
        """The same iterate with another evaluation of its point."""
        norm, evaluations = self.space.stationarity(evaluation), iterate.evaluations + 1
        return replace(iterate, evaluation=evaluation, gradient_norm=norm, oracle=knowledge, evaluations=evaluations)

    def accuracy(self, gradient_norm: float, sensitivity: float) -> Accuracy:
        """Tie the accuracy of the next evaluation to the gradient that is meant to be left.

        Errors of a few per cent of the gradient cost the outer method no iterations, smaller ones inner steps.
        """
        stopping = self.stopping
        wanted = 0.03 * max(gradient_norm, self.goal) / sensitivity if sensitivity > 0.0 else math.inf
        value = min(max(wanted, 1e-4 * stopping.certificate), stopping.roughest)
        return Accuracy(value, value)

    def with_scales_of(self, first: Iterate, scales: GradientScales, unit: float, solved: float = 0.0) -> _Search:
        """The search with the data that are known once the first point has been evaluated."""
        goal = max(self.stopping.goal(first.gradient_norm, scales), solved)
        return replace(self, scales=scales, goal=goal, space=replace(self.space, unit=unit))


def minimise(
    problem: OuterProblem,
    oracle: Oracle,
    outer: OuterMethod,
    stopping: Stopping,
    callback: Callable[[Iterate], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    keep: Callable[[LoopState, bool], None] = lambda state, last: None,
    resumed: LoopState | None = None,
    judge: Oracle | None = None,
) -> Minimum:
    """Minimise Phi(v) = f(u*(v), v).

    Args:
        problem: what to minimise.
        oracle: how Phi and its derivative are found.
        outer: how v moves.
        stopping: when to stop.
        callback: told every accepted iterate once, the first one included.
        interrupted: asked before every evaluation but the first; true ends the run with the iterate it has.
        keep: given the state after every accepted iterate, and with true where the run ends and may be resumed.
        resumed: such a state to go on from, in place of the start.
        judge: an oracle that can tell whether the start is a solution, where the first one cannot.

    Raises:
        ValueError: the outer method does not take what the problem has, or needs what it has not.
    """
    space = outer_space(problem)
    objection = objection_of(outer, space)
    if objection:
        raise ValueError(objection)
    tell = callback or (lambda iterate: None)
    search = _Search(problem, oracle, stopping, interrupted, space)

    loop = resumed or _start(search, outer)
    if isinstance(loop, Minimum):
        return loop
    told = loop.first
    if resumed is None and judge is not None:
        loop, told = judged_start(loop, problem, oracle, judge, outer, space, stopping, interrupted)
    first = loop.first
    search = search.with_scales_of(first, loop.scales, loop.unit, loop.solved)
    if resumed is None:
        tell(told)
        keep(loop, False)

    while True:
        end = _end(loop, search)
        if end is not None:
            keep(loop, True)
            return explained(end, problem, loop.edge or loop.crossed, search.goal, stopping)
        current, evaluations, bad, sensitivity = loop.current, loop.evaluations + 1, loop.bad, loop.sensitivity
        proposal, state = outer.propose(search.space, loop.outer, _hessian(problem, oracle, current))
        proposal, state, refused = held_back(problem, outer, search.space, state, proposal, loop.crossed is not None)
        loop = replace(loop, edge=refused or loop.edge)
        if refused is not None and loop.crossed is not None:
            # The scenarios that have not been looked at yet may keep the optimum from the edge.
            wider = _grown(current, first, search, forced=True)
            if wider.evaluation is not current.evaluation:
                state = outer.rebased(search.space, loop.outer, wider.evaluation)
                loop = replace(loop, current=wider, outer=state, knowledge=wider.oracle, tried=None)
                loop = replace(loop, evaluations=wider.evaluations, bad=0)
                continue
        if refused is not None and refused.reached(space, current, first, loop.crossed):
            keep(loop, True)
            return ended_at_edge(problem, refused, current, first, search.goal, stopping)
        accuracy = search.accuracy(state.reduction * current.gradient_norm, sensitivity)
        evaluation, knowledge = search.evaluate(proposal, _nearest(loop, proposal, problem), accuracy)
        if not evaluation.finite:
            # A failed inner solve is a step that was too long: shorten it.
            bad += 1
            if bad > _MOST_BAD_EVALUATIONS and loop.edge is not None:
                return ended_at_edge(problem, loop.edge, current, first, search.goal, stopping)
            if bad > _MOST_BAD_EVALUATIONS:
                reason = evaluation.message or "the objective or its gradient is not finite"
                return Minimum(current, first, "failed", f"every step tried fails: {reason}")
        else:
            sensitivity = evaluation.sensitivity
        state = outer.update(search.space, state, evaluation)
        loop = replace(loop, outer=state, knowledge=knowledge, tried=proposal)
        loop = replace(loop, evaluations=evaluations, bad=bad, sensitivity=sensitivity)
        if not state.accepted:
            again = _known_better(loop, search, outer, evaluation) if state.failure else None
            search, loop = again or (search, loop)
            continue
        loop = _reached(loop, search, outer)
        if not loop.current.evaluation.finite or _grown_without_bound(loop.current.evaluation, first.evaluation, space):
            return Minimum(current, first, "failed", diverged(loop.current.evaluation, first))
        search, loop = _settled(loop, current, search, outer)
        loop = replace(loop, edge=None, crossed=loop.edge)
        tell(loop.current)
        keep(loop, False)


def _nearest(loop: LoopState, v: Tensor, problem: OuterProblem) -> Any:
    """What is known for an evaluation at v, with the states at the iterate or at the last trial: those that are nearer.

    A trial that was far too long may have states on another branch of solutions, which steps would not leave again.
    Where the equation is linear in the state there is one solution, and the last states are what is known best.
    """
    unique = not isinstance(problem, InnerEquation) or problem.linear
    if loop.tried is None or unique:
        return loop.knowledge
    current = loop.current
    near, far = (problem.outer_metric.norm((v - other)[None]) for other in (loop.tried, current.evaluation.v))
    return loop.knowledge if near < far else current.oracle.blend(loop.knowledge, 0.0)


def _known_better(
    loop: LoopState, search: _Search, outer: OuterMethod, tried: Evaluation
) -> tuple[_Search, LoopState] | None:
    """What to go on with after a search without success: values that are known ten times better.

    An objective that is known roughly may seem lower at an iterate than it is anywhere. None where the values were
    known well enough, or are not known better.
    """
    stopping, current = search.stopping, loop.current
    before = worst_residual(current.evaluation)
    roughest = max(0.1 * stopping.roughest, stopping.certificate)
    if max(before, worst_residual(tried)) <= stopping.certificate or roughest >= stopping.roughest:
        return None
    search = replace(search, stopping=replace(stopping, roughest=roughest))
    tolerance = min(roughest, max(0.1 * before, stopping.certificate))
    evaluation, knowledge = search.evaluate(current.evaluation.v, current.oracle, Accuracy(tolerance, tolerance))
    if not (evaluation.finite and worst_residual(evaluation) <= max(0.5 * before, stopping.certificate)):
        return None
    current = search.reevaluated(current, evaluation, knowledge)
    return search, replace(
        loop,
        current=current,
        outer=outer.init(search.space, evaluation),
        knowledge=knowledge,
        tried=None,
        evaluations=loop.evaluations + 1,
        bad=0,
    )


def _reached(loop: LoopState, search: _Search, outer: OuterMethod) -> LoopState:
    """The loop at the iterate that the outer method has accepted; it may lie before the point that was evaluated."""
    before, state, knowledge, space = loop.current, loop.outer, loop.knowledge, search.space
    if state.share != 1.0:
        knowledge = before.oracle.blend(knowledge, state.share)
        if not isinstance(search.oracle, GrowingOracle):
            # Where the hypergradient is biased, values integrated from slopes are not those of the objective.
            value = search.problem.outer_value(knowledge.u, state.best.v) + space.l1(state.best.v)
            state = outer.revalued(state, value)
    reached = Iterate(
        iteration=before.iteration + 1,
        evaluation=state.best,
        gradient_norm=math.nan,
        step=state.step,
        evaluations=loop.evaluations,
        oracle=knowledge,
        change=float((state.best.v - before.evaluation.v).abs().max()),
        change_before=before.change,
    )
    return replace(loop, current=reached, outer=state, knowledge=knowledge, bad=0)


def _settled(loop: LoopState, before: Iterate, search: _Search, outer: OuterMethod) -> tuple[_Search, LoopState]:
    """The loop with its iterate measured, confirmed if the run would end there, and evaluated with enough scenarios."""
    state, first = loop.outer, loop.first
    search = replace(search, space=search.space.sharpened(before.evaluation, loop.current.evaluation))
    reached = replace(loop.current, gradient_norm=search.space.stationarity(loop.current.evaluation))
    confirmed = _confirmed(reached, search)
    if confirmed.evaluation is not reached.evaluation:
        state = outer.init(search.space, confirmed.evaluation)
    current = _grown(confirmed, first, search)
    if current.evaluation is not confirmed.evaluation:
        state = outer.rebased(search.space, state, current.evaluation)
    return search, replace(
        loop,
        current=current,
        outer=state,
        knowledge=current.oracle,
        tried=None,
        evaluations=current.evaluations,
        unit=search.space.unit,
    )


def outer_space(problem: OuterProblem) -> Feasible:
    """The space that the outer variables of a problem move in."""
    constraint, weights = constraint_of(problem), l1_weights_of(problem)
    space = Feasible(problem.outer_metric, problem.bounds, False, constraint, weights)
    return replace(space, quadratic=problem.quadratic and constraint is None)


def _start(search: _Search, outer: OuterMethod) -> LoopState | Minimum:
    """The state after the first evaluation, or the reason why there is none."""
    problem, oracle, stopping = search.problem, search.oracle, search.stopping
    u, v = problem.start()
    v = search.space.project(v)
    try:
        knowledge = oracle.init(problem, u, v)
    except SingularMatrixError as singular:
        nothing = failed_evaluation(v, str(singular))
        start = Iterate(0, nothing, nothing.value, 0.0, 0, Unsolved(u))
        return Minimum(start, start, "failed", f"at the starting point: {singular}")
    evaluation, knowledge = search.evaluate(v, knowledge, Accuracy(stopping.certificate, stopping.certificate))
    space = search.space.scaled(evaluation)
    first = Iterate(0, evaluation, space.stationarity(evaluation), 0.0, 1, knowledge)
    complaint = evaluation.message or "the objective or its gradient is not finite"
    if evaluation.finite:
        complaint = out_of_range(evaluation)
    if complaint:
        return Minimum(first, first, "failed", f"at the starting point: {complaint}")
    scales = UNKNOWN
    if isinstance(oracle, ScalesOracle):
        scales = oracle.scales(problem, v, knowledge, evaluation)
        rounding = max(evaluation.rounding, scales.rounding)
        first = replace(first, evaluation=replace(evaluation, rounding=rounding))
        scales = _of_solutions(scales, first, search)
    search = search.with_scales_of(first, scales, space.unit)
    first = _confirmed(first, search)
    first = _grown(first, first, search)
    return LoopState(
        first=first,
        current=first,
        outer=outer.init(search.space, first.evaluation),
        knowledge=first.oracle,
        evaluations=first.evaluations,
        bad=0,
        sensitivity=first.evaluation.sensitivity,
        unit=space.unit,
        scales=scales,
    )


def _of_solutions(scales: GradientScales, first: Iterate, search: _Search) -> GradientScales:
    """With the norm of the first gradient as its natural size, where that is no sign of a solution.

    A state that is large beside what has to change in it, as one with an offset is, has large gradients by its nature.
    """
    norm, v = first.gradient_norm, first.evaluation.v
    if not (scales.rounding < norm and search.stopping.goal(norm, scales) > search.stopping.goal(norm, UNKNOWN)):
        return scales
    # Of the objective, along a step as long as v; of v, by what the gradient changes by along such a step.
    length, value = search.space.metric.norm(v[None]), abs(first.evaluation.value)
    if norm * length <= _OPEN * value and length > 0.0:
        return scales
    hessian = _hessian(search.problem, search.oracle, first)
    change = 0.0 if hessian is None else search.space.metric.dual_norm_estimate(hessian(v)[None])
    return scales if norm <= _OPEN * change else replace(scales, natural=norm)


def _end(loop: LoopState, search: _Search) -> Minimum | None:
    """The result, where it is time to stop."""
    first, current, goal, stopping = loop.first, loop.current, search.goal, search.stopping
    if search.last(current) and search.certified(current):
        return Minimum(current, first, "converged", converged(current, first, goal, stopping, search.scales))
    if search.interrupted():
        return Minimum(current, first, "interrupted", f"interrupted; {standing(current, first, goal, stopping)}")
    if search.last(current):
        return Minimum(current, first, "stopped", uncertified(current, stopping))
    if current.iteration >= stopping.iterations:
        return Minimum(current, first, "stopped", out_of_iterations(current, goal, stopping))
    if loop.outer.failure:
        message = f"{loop.outer.failure}; {standing(current, first, goal, stopping)}"
        return Minimum(current, first, "stopped", message)
    return None


def _grown_without_bound(evaluation: Evaluation, start: Evaluation, space: Feasible) -> bool:
    """Whether the objective has grown by orders of magnitude more than its value and slope at the start explain."""
    explained = abs(start.value) + start.norm * space.metric.norm((evaluation.v - start.v)[None])
    return not evaluation.value - start.value <= _GROWN * explained


def _confirmed(iterate: Iterate, search: _Search) -> Iterate:
    """The iterate, evaluated again where the run would end on what is known from other points or not well.

    An evaluation starts from the last one, so that it is repeated as long as that halves the certificate.
    """
    tolerance = 0.5 * search.stopping.certificate
    while search.last(iterate) and not search.certified(iterate):
        if search.interrupted():
            break
        v, before = iterate.evaluation.v, iterate
        evaluation, knowledge = search.evaluate(v, iterate.oracle, Accuracy(tolerance, tolerance))
        iterate = replace(iterate, evaluations=iterate.evaluations + 1)
        better = before.evaluation.blended or worst_residual(evaluation) <= 0.5 * worst_residual(before.evaluation)
        if not (evaluation.finite and better):
            break
        iterate = search.reevaluated(before, evaluation, knowledge)
    return iterate


def _grown(iterate: Iterate, first: Iterate, search: _Search, forced: bool = False) -> Iterate:
    """The iterate, evaluated with as many scenarios as it takes to tell in which direction the optimum is.

    If `forced`, more scenarios than now are taken, as if the gradient were zero.
    """
    oracle = search.oracle
    while isinstance(oracle, GrowingOracle) and not search.interrupted():
        stationarity, forced = 0.0 if forced else iterate.gradient_norm, False
        state = oracle.grown(search.problem, iterate.oracle, stationarity, first.gradient_norm, search.goal)
        if state is None:
            break
        accuracy = search.accuracy(iterate.gradient_norm, iterate.evaluation.sensitivity)
        evaluation, knowledge = search.evaluate(iterate.evaluation.v, state, accuracy)
        if not evaluation.finite:
            break
        iterate = _confirmed(search.reevaluated(iterate, evaluation, knowledge), search)
    return iterate


def _hessian(problem: OuterProblem, oracle: Oracle, current: Iterate) -> HessianProduct | None:
    if not isinstance(oracle, SecondOrderOracle):
        return None
    return oracle.hessian(problem, current.evaluation.v, current.oracle)
