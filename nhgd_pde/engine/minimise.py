"""The outer loop that every method shares: evaluate, accept or shorten the step, stop for a stated reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from .admissible import ended_at_edge, explained, held_back
from .bilevel import OuterProblem
from .loop import Iterate, LoopState, Minimum, Stopping, worst_residual
from .optimality_gap import LENGTH
from .oracle import Accuracy, GrowingOracle, Oracle, Unsolved
from .outer.base import OuterMethod, OuterState
from .outer.reduced_objective import Evaluation, failed_evaluation
from .reasons import converged, diverged, out_of_iterations, out_of_range, standing, uncertified
from .scales import UNKNOWN, GradientScales, ScalesOracle
from .search import Search, outer_space
from .starts import judged_start

# Largest number of failed evaluations in a row. With a tenth of the step each time more of them are hopeless; a line
# search gives up a little later.
_MOST_BAD_EVALUATIONS = 20
# The objective has diverged where it has grown by this factor more than its value and slope at the start explain.
_GROWN = 1e6
# A start is near the optimum if its gradient is below this share of that at the start to which rtol is relative.
_NEAR = 0.1
# A start is no solution where the objective, and the control, may change by more than this share of themselves.
_OPEN = 1e-5


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
        problem: the problem to minimise.
        oracle: how Phi and its derivative are found.
        outer: how v moves.
        stopping: when to stop.
        callback: called with every accepted iterate once, the first one included.
        interrupted: asked before every evaluation but the first; true ends the run with the iterate it has.
        keep: called with the state after every accepted iterate, and with true where the run ends and may be resumed.
        resumed: such a state to go on from, in place of the start.
        judge: an oracle that can decide whether the start is a solution, where the first one cannot.

    Raises:
        ValueError: the outer method does not fit the problem.
    """
    search = Search(problem, oracle, outer, stopping, interrupted, outer_space(problem))
    if search.objection:
        raise ValueError(search.objection)
    tell = callback or (lambda iterate: None)
    loop = resumed or _start(search)
    if isinstance(loop, Minimum):
        return loop
    if resumed is None:
        loop, start = (loop, loop.first) if judge is None else judged_start(loop, search, judge)
        tell(start)
        del start  # It may hold factors, which are not needed any more.
    search = search.with_scales_of(loop.first, loop.scales, loop.unit, loop.solved)
    if resumed is None:
        keep(loop, False)
    loop = replace(loop, first=loop.first.without_oracle())
    while True:
        end, proposal = _end(loop, search), None
        if end is None:
            loop, proposal, end = _proposed(loop, search)
        if end is not None:
            keep(loop, True)
            return _measured(end, search)
        if proposal is None:
            continue
        loop, evaluation = _evaluated(loop, search, proposal)
        if loop.bad > _MOST_BAD_EVALUATIONS:
            return _given_up(loop, search, evaluation)
        if not loop.outer.accepted:
            search, loop = _known_better(loop, search, evaluation)
            continue
        search, loop, end = _accepted(loop, search)
        if end is not None:
            return end
        tell(loop.current)
        keep(loop, False)


def first_gradient_norm(problem: OuterProblem, oracle: Oracle, outer: OuterMethod, stopping: Stopping) -> float:
    """The norm of the gradient at the start of a problem, by one evaluation; 0 where that is not possible."""
    search = Search(problem, oracle, outer, stopping, lambda: False, outer_space(problem))
    u, v = problem.start()
    v = search.space.project(v)
    try:
        knowledge = oracle.init(problem, u, v)
    except SingularMatrixError:
        return 0.0
    evaluation, _ = search.evaluate(v, knowledge, Accuracy(stopping.certificate, stopping.certificate))
    return search.space.scaled(evaluation).stationarity(evaluation) if evaluation.finite else 0.0


def _start(search: Search) -> LoopState | Minimum:
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
    if stopping.scaled and isinstance(oracle, ScalesOracle):
        scales = oracle.scales(problem, v, knowledge, evaluation)
        rounding = max(evaluation.rounding, scales.rounding)
        first = replace(first, evaluation=replace(evaluation, rounding=rounding))
        scales = _of_solutions(scales, first, search)
    search = search.with_scales_of(first, scales, space.unit)
    first = search.confirmed(first)
    first = search.grown(first, first)
    begun = search.outer.init(search.space, first.evaluation)
    if first.gradient_norm < _NEAR * stopping.reference:
        begun = search.outer.near(begun)
    return LoopState(
        first=first,
        current=first,
        outer=begun,
        knowledge=first.oracle,
        evaluations=first.evaluations,
        bad=0,
        sensitivity=first.evaluation.sensitivity,
        unit=space.unit,
        scales=scales,
    )


def _of_solutions(scales: GradientScales, first: Iterate, search: Search) -> GradientScales:
    """The scales, with the norm of the first gradient as its natural size where a small gradient is no solution.

    A state that is large compared with what has to change in it, as one with an offset is, has a gradient of a large
    natural size.
    """
    norm, v = first.gradient_norm, first.evaluation.v
    if not (scales.rounding < norm and search.stopping.goal(norm, scales) > search.stopping.goal(norm, UNKNOWN)):
        return scales
    # The objective changes by at most this along a step as long as v.
    length, value = search.space.metric.norm(v[None]), abs(first.evaluation.value)
    if norm * length <= _OPEN * value and length > 0.0:
        return scales
    # The gradient changes by this along such a step, which shows how far v is from a solution.
    hessian = search.hessian(first)
    change = 0.0 if hessian is None else search.space.metric.dual_norm_estimate(hessian(v)[None])
    return scales if norm <= _OPEN * change else replace(scales, natural=norm)


def _end(loop: LoopState, search: Search) -> Minimum | None:
    """The result, where it is time to stop."""
    first, current, goal, stopping = loop.first, loop.current, search.goal, search.stopping
    if search.last(current) and search.certified(current):
        end = Minimum(current, first, "converged", converged(current, first, goal, stopping, search.scales))
    elif search.interrupted():
        end = Minimum(current, first, "interrupted", standing(current, first, goal, stopping))
    elif search.last(current):
        end = Minimum(current, first, "stopped", uncertified(current, stopping))
    elif current.iteration >= stopping.iterations:
        end = Minimum(current, first, "stopped", out_of_iterations(current, goal, stopping))
    elif loop.outer.failure:
        message = f"{loop.outer.failure}; {standing(current, first, goal, stopping)}"
        end = Minimum(current, first, "stopped", message)
    else:
        return None
    return explained(end, search.problem, loop.edge or loop.crossed, goal, stopping)


def _proposed(loop: LoopState, search: Search) -> tuple[LoopState, Tensor | None, Minimum | None]:
    """The loop with a new proposal, the proposed point (p,), and the result where no step leads on.

    There is no point where the loop has more scenarios instead of a proposal.
    """
    problem, outer, current, first = search.problem, search.outer, loop.current, loop.first
    if search.exact:
        # A quadratic problem has no edge.
        proposal, state = outer.propose(search.space, loop.outer)
        return replace(loop, outer=state), proposal, None
    proposal, state = outer.propose(search.space, loop.outer, search.hessian(current))
    proposal, state, edge = held_back(problem, outer, search.space, state, proposal, loop.crossed is not None)
    loop = replace(loop, edge=edge or loop.edge)
    if edge is not None and loop.crossed is not None:
        # The scenarios that have not been looked at yet may keep the optimum away from the edge.
        wider = search.grown(current, first, forced=True)
        if wider.evaluation is not current.evaluation:
            return _reevaluated(loop, wider, outer.rebased(search.space, loop.outer, wider.evaluation)), None, None
    if edge is not None and edge.reached(search.space, current, first, loop.crossed):
        return loop, None, ended_at_edge(problem, edge, current, first, search.goal, search.stopping)
    return replace(loop, outer=state), proposal, None


def _evaluated(loop: LoopState, search: Search, proposal: Tensor) -> tuple[LoopState, Evaluation]:
    """The loop with the outer method after it has seen the evaluation of its proposal, and this evaluation."""
    if search.exact:
        return _answered(loop, search)
    if search.follows(loop.current):
        evaluation, knowledge = search.followed(loop.current, proposal)
        state, bad = search.outer.update(search.space, loop.outer, evaluation), loop.bad + (not evaluation.finite)
        return replace(loop, outer=state, knowledge=knowledge, tried=proposal, bad=bad), evaluation
    accuracy = search.accuracy(loop.outer.reduction * loop.current.gradient_norm, loop.sensitivity)
    evaluation, knowledge = search.evaluate(proposal, search.nearest(loop, proposal), accuracy)
    # A failed inner solve is a step that was too long, which the outer method shortens.
    bad, sensitivity = (loop.bad, evaluation.sensitivity) if evaluation.finite else (loop.bad + 1, loop.sensitivity)
    state = search.outer.update(search.space, loop.outer, evaluation)
    loop = replace(loop, outer=state, knowledge=knowledge, tried=proposal, bad=bad, sensitivity=sensitivity)
    return replace(loop, evaluations=loop.evaluations + 1), evaluation


def _answered(loop: LoopState, search: Search) -> tuple[LoopState, Evaluation]:
    """The loop after an exact step of a quadratic problem, whose end is not evaluated."""
    current = loop.current
    # The difference of the proposal and the iterate would have the rounding errors of both.
    answer = search.response(current, search.outer.direction(loop.outer))
    state = search.outer.answered(search.space, loop.outer, answer.product, answer.represented)
    knowledge = search.moved(current, answer, state.step) if state.accepted else loop.knowledge
    return replace(loop, outer=state, knowledge=knowledge, tried=None), state.best


def _measured(end: Minimum, search: Search) -> Minimum:
    """The result with its last iterate evaluated, where steps have led there that were not.

    This takes no solves where the products with the Hessian were accurate. A run that is resumed goes on with the
    iterate as it was, so that the directions stay conjugate.
    """
    last, least = end.last, search.stopping.certificate
    if last.evaluation.measured or not last.evaluation.blended:
        return end
    evaluation, knowledge = search.evaluate(last.evaluation.v, last.oracle, Accuracy(least, least))
    return replace(end, last=search.reevaluated(last, evaluation, knowledge)) if evaluation.finite else end


def _given_up(loop: LoopState, search: Search, evaluation: Evaluation) -> Minimum:
    """The result after too many failed evaluations, the last of which is given."""
    if loop.edge is not None:
        return ended_at_edge(search.problem, loop.edge, loop.current, loop.first, search.goal, search.stopping)
    reason = evaluation.message or "the objective or its gradient is not finite"
    return Minimum(loop.current, loop.first, "failed", f"every step tried fails: {reason}")


def _known_better(loop: LoopState, search: Search, tried: Evaluation) -> tuple[Search, LoopState]:
    """The search and the loop after a trial that was not accepted, with better known values if the method has failed.

    An objective that is known roughly may seem lower at an iterate than it is anywhere. Then its values are evaluated
    ten times as accurately, unless they were known well enough, or do not become better known. An iterate that products
    with the Hessian have led to is evaluated.
    """
    stopping, current = search.stopping, loop.current
    before = worst_residual(current.evaluation)
    roughest = max(0.1 * stopping.roughest, stopping.certificate)
    certain = before <= stopping.certificate and worst_residual(tried) <= stopping.certificate
    known = current.evaluation.measured and (certain or roughest >= stopping.roughest)
    if known or not loop.outer.failure:
        return search, loop
    finer = replace(search, stopping=replace(stopping, roughest=roughest))
    tolerance = min(roughest, max(0.1 * before, stopping.certificate))
    evaluation, knowledge = finer.evaluate(current.evaluation.v, current.oracle, Accuracy(tolerance, tolerance))
    if not (evaluation.finite and worst_residual(evaluation) <= max(0.5 * before, stopping.certificate)):
        return search, loop
    current, state = finer.reevaluated(current, evaluation, knowledge), search.outer.init(finer.space, evaluation)
    return finer, replace(_reevaluated(loop, current, state), evaluations=loop.evaluations + 1)


def _reached(loop: LoopState, search: Search) -> LoopState:
    """The loop at the iterate that the outer method has accepted, which may lie before the point that was evaluated."""
    before, state, knowledge, space = loop.current, loop.outer, loop.knowledge, search.space
    if state.share != 1.0:
        knowledge = before.oracle.blend(knowledge, state.share)
        if not isinstance(search.oracle, GrowingOracle):
            # Where the hypergradient is biased, values integrated from slopes are not those of the objective.
            value = search.problem.outer_value(knowledge.u, state.best.v) + space.l1(state.best.v)
            state = search.outer.revalued(state, value)
    reached = Iterate(
        iteration=before.iteration + 1,
        evaluation=state.best,
        gradient_norm=math.nan,
        step=state.step,
        evaluations=loop.evaluations,
        oracle=knowledge,
        change=float((state.best.v - before.evaluation.v).abs().max()),
        change_before=before.change,
        trail=(*before.trail, (before.evaluation.value, before.gradient_norm))[-LENGTH:],
    )
    return replace(loop, current=reached, outer=state, knowledge=knowledge, bad=0)


def _diverged(loop: LoopState, search: Search) -> bool:
    """Whether the objective has grown by orders of magnitude more than its value and slope at the start explain."""
    reached, start = loop.current.evaluation, loop.first.evaluation
    if not reached.finite or reached.value <= start.value:
        return not reached.finite
    expected = abs(start.value) + start.norm * search.space.metric.norm((reached.v - start.v)[None])
    return not reached.value - start.value <= _GROWN * expected


def _accepted(loop: LoopState, search: Search) -> tuple[Search, LoopState, Minimum | None]:
    """The loop at its new iterate, and the result where the objective has diverged.

    Nothing refers to the iterate before any longer, as its factors may be large.
    """
    before, loop = loop.current, _reached(loop, search)
    if _diverged(loop, search):
        end = Minimum(before, loop.first, "failed", diverged(loop.current.evaluation, loop.first))
        return search, loop, end
    return *_settled(loop, before, search), None


def _settled(loop: LoopState, before: Iterate, search: Search) -> tuple[Search, LoopState]:
    """The loop with its iterate measured, confirmed if the run would end there, and evaluated with enough scenarios."""
    state = loop.outer
    search = replace(search, space=search.space.sharpened(before.evaluation, loop.current.evaluation))
    reached = replace(loop.current, gradient_norm=search.space.stationarity(loop.current.evaluation))
    confirmed = search.confirmed(reached, state.failure != "")
    if confirmed.evaluation is not reached.evaluation:
        state = search.outer.corrected(search.space, state, confirmed.evaluation)
    current = search.grown(confirmed, loop.first)
    if current.evaluation is not confirmed.evaluation:
        state = search.outer.rebased(search.space, state, current.evaluation)
    loop = replace(_reevaluated(loop, current, state), unit=search.space.unit)
    return search, replace(loop, edge=None, crossed=loop.edge)


def _reevaluated(loop: LoopState, current: Iterate, state: OuterState) -> LoopState:
    """The loop with an iterate whose point has been evaluated again, and the state of the outer method there."""
    return replace(
        loop,
        current=current,
        outer=state,
        knowledge=current.oracle,
        tried=None,
        evaluations=current.evaluations,
        bad=0,
    )
