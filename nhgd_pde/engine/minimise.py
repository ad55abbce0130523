"""The outer loop that every method shares: evaluate, accept or shorten the step, stop for a stated reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ..linalg.factorisation import SingularMatrixError
from .admissible import Edge, ended_at_edge, explained, held_back
from .bilevel import OuterProblem, constraint_of, l1_weights_of
from .loop import Iterate, LoopState, Minimum, Stopping, worst_residual
from .oracle import Accuracy, GrowingOracle, Oracle, SecondOrderOracle, Unsolved
from .outer.base import Feasible, HessianProduct, OuterMethod, failed_evaluation
from .reasons import converged, diverged, out_of_iterations, standing, uncertified

# With a tenth of the step each time this is hopeless; a line search gives up a little later.
_MOST_BAD_EVALUATIONS = 20


def minimise(
    problem: OuterProblem,
    oracle: Oracle,
    outer: OuterMethod,
    stopping: Stopping,
    callback: Callable[[Iterate], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    keep: Callable[[LoopState, bool], None] = lambda state, last: None,
    resumed: LoopState | None = None,
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

    Raises:
        ValueError: the outer method does not take what the problem has, or needs what it has not.
    """
    space = outer_space(problem)
    objection = outer.objection(space)
    if objection:
        raise ValueError(objection)
    tell = callback or (lambda iterate: None)

    loop = resumed or _start(problem, oracle, outer, stopping, space, interrupted)
    if isinstance(loop, Minimum):
        return loop
    first = loop.first
    goal = max(stopping.rtol * first.gradient_norm, stopping.atol)
    if resumed is None:
        tell(first)
        keep(loop, False)

    # Where steps from the current iterate, and the step to it, would have left what is admissible.
    edge: Edge | None = None
    crossed: Edge | None = None
    while True:
        end = _end(loop, goal, stopping, interrupted)
        if end is not None:
            keep(loop, True)
            return explained(end, problem, edge or crossed, goal, stopping)
        current, evaluations, bad, sensitivity = loop.current, loop.evaluations + 1, loop.bad, loop.sensitivity
        proposal, state = outer.propose(space, loop.outer, _hessian(problem, oracle, current))
        proposal, state, refused = held_back(problem, outer, space, state, proposal, crossed is not None)
        edge = refused or edge
        if refused is not None and crossed is not None:
            # The scenarios that have not been looked at yet may keep the optimum from the edge.
            wider = _grown(current, first, problem, oracle, space, goal, stopping, interrupted, forced=True)
            if wider.evaluation is not current.evaluation:
                state = outer.rebased(space, loop.outer, wider.evaluation)
                loop = LoopState(first, wider, state, wider.oracle, wider.evaluations, 0, sensitivity)
                continue
        if refused is not None and refused.reached(space, current, first, crossed):
            keep(loop, True)
            return ended_at_edge(problem, refused, current, first, goal, stopping)
        accuracy = _accuracy(state.reduction * current.gradient_norm, sensitivity, goal, stopping)
        evaluation, knowledge = oracle.evaluate(problem, proposal, loop.knowledge, accuracy)
        evaluation = space.completed(evaluation)
        if not evaluation.finite:
            # A failed inner solve is a step that was too long: shorten it.
            bad += 1
            if bad > _MOST_BAD_EVALUATIONS and edge is not None:
                return ended_at_edge(problem, edge, current, first, goal, stopping)
            if bad > _MOST_BAD_EVALUATIONS:
                reason = evaluation.message or "the objective or its gradient is not finite"
                return Minimum(current, first, "failed", f"every step tried fails: {reason}")
        else:
            sensitivity = evaluation.sensitivity
        state = outer.update(space, state, evaluation)
        if not state.accepted:
            loop = LoopState(first, current, state, knowledge, evaluations, bad, sensitivity)
            continue
        if state.share != 1.0:
            knowledge = current.oracle.blend(knowledge, state.share)
            if not isinstance(oracle, GrowingOracle):
                # Where the hypergradient is biased, values integrated from slopes are not those of the objective.
                value = problem.outer_value(knowledge.u, state.best.v) + space.l1(state.best.v)
                state = outer.revalued(state, value)
        if not state.best.finite or state.best.value > 1e6 * (abs(first.evaluation.value) + 1e-300):
            return Minimum(current, first, "failed", diverged(state.best, first))
        reached = Iterate(
            iteration=current.iteration + 1,
            evaluation=state.best,
            gradient_norm=space.stationarity(state.best),
            step=state.step,
            evaluations=evaluations,
            oracle=knowledge,
            change=float((state.best.v - current.evaluation.v).abs().max()),
            change_before=current.change,
        )
        current = _confirmed(reached, problem, oracle, space, goal, stopping, interrupted)
        if current.evaluation is not reached.evaluation:
            state = outer.init(space, current.evaluation)
        confirmed, current = current, _grown(current, first, problem, oracle, space, goal, stopping, interrupted)
        if current.evaluation is not confirmed.evaluation:
            state = outer.rebased(space, state, current.evaluation)
        loop = LoopState(first, current, state, current.oracle, current.evaluations, 0, sensitivity)
        edge, crossed = None, edge
        tell(current)
        keep(loop, False)


def outer_space(problem: OuterProblem) -> Feasible:
    """The space that the outer variables of a problem move in."""
    constraint, weights = constraint_of(problem), l1_weights_of(problem)
    space = Feasible(problem.outer_metric, problem.bounds, False, constraint, weights)
    return replace(space, quadratic=problem.quadratic and constraint is None)


def _start(
    problem: OuterProblem,
    oracle: Oracle,
    outer: OuterMethod,
    stopping: Stopping,
    space: Feasible,
    interrupted: Callable[[], bool],
) -> LoopState | Minimum:
    """The state after the first evaluation, or the reason why there is none."""
    u, v = problem.start()
    v = space.project(v)
    try:
        knowledge = oracle.init(problem, u, v)
    except SingularMatrixError as singular:
        nothing = failed_evaluation(v, str(singular))
        start = Iterate(0, nothing, nothing.value, 0.0, 0, Unsolved(u))
        return Minimum(start, start, "failed", f"at the starting point: {singular}")
    accuracy = Accuracy(stopping.certificate, stopping.certificate)
    evaluation, knowledge = oracle.evaluate(problem, v, knowledge, accuracy)
    evaluation = space.completed(evaluation)
    first = Iterate(0, evaluation, space.stationarity(evaluation), 0.0, 1, knowledge)
    if not evaluation.finite:
        message = evaluation.message or "the objective or its gradient is not finite"
        return Minimum(first, first, "failed", f"at the starting point: {message}")
    goal = max(stopping.rtol * first.gradient_norm, stopping.atol)
    first = _confirmed(first, problem, oracle, space, goal, stopping, interrupted)
    first = _grown(first, first, problem, oracle, space, goal, stopping, interrupted)
    state = outer.init(space, first.evaluation)
    return LoopState(first, first, state, first.oracle, first.evaluations, 0, first.evaluation.sensitivity)


def _end(loop: LoopState, goal: float, stopping: Stopping, interrupted: Callable[[], bool]) -> Minimum | None:
    """The result, where it is time to stop."""
    first, current = loop.first, loop.current
    small = stopping.small(current, goal)
    if (small or stopping.unchanged(current)) and stopping.certified(current, goal):
        return Minimum(current, first, "converged", converged(current, first, goal, stopping))
    if interrupted():
        return Minimum(current, first, "interrupted", f"interrupted; {standing(current, first, goal, stopping)}")
    if small or stopping.unchanged(current):
        return Minimum(current, first, "stopped", uncertified(current, stopping))
    if current.iteration >= stopping.iterations:
        return Minimum(current, first, "stopped", out_of_iterations(current, goal, stopping))
    if loop.outer.failure:
        message = f"{loop.outer.failure}; {standing(current, first, goal, stopping)}"
        return Minimum(current, first, "stopped", message)
    return None


def _confirmed(
    iterate: Iterate,
    problem: OuterProblem,
    oracle: Oracle,
    space: Feasible,
    goal: float,
    stopping: Stopping,
    interrupted: Callable[[], bool],
) -> Iterate:
    """The iterate, evaluated again where the run would end on what is known from other points or not well.

    An evaluation starts from the last one, so that it is repeated as long as that halves the certificate.
    """
    accuracy = Accuracy(0.5 * stopping.certificate, 0.5 * stopping.certificate)

    def last() -> bool:
        return stopping.small(iterate, goal) or stopping.unchanged(iterate)

    while last() and not stopping.certified(iterate, goal):
        if interrupted():
            break
        evaluation, knowledge = oracle.evaluate(problem, iterate.evaluation.v, iterate.oracle, accuracy)
        iterate = replace(iterate, evaluations=iterate.evaluations + 1)
        better = iterate.evaluation.blended or worst_residual(evaluation) <= 0.5 * worst_residual(iterate.evaluation)
        if not (evaluation.finite and better):
            break
        evaluation = space.completed(evaluation)
        norm = space.stationarity(evaluation)
        iterate = replace(iterate, evaluation=evaluation, gradient_norm=norm, oracle=knowledge)
    return iterate


def _grown(
    iterate: Iterate,
    first: Iterate,
    problem: OuterProblem,
    oracle: Oracle,
    space: Feasible,
    goal: float,
    stopping: Stopping,
    interrupted: Callable[[], bool],
    forced: bool = False,
) -> Iterate:
    """The iterate, evaluated with as many scenarios as it takes to tell in which direction the optimum is.

    If `forced`, it takes more than there are, as if the gradient were zero.
    """
    while isinstance(oracle, GrowingOracle) and not interrupted():
        stationarity, forced = 0.0 if forced else iterate.gradient_norm, False
        state = oracle.grown(problem, iterate.oracle, stationarity, first.gradient_norm, goal)
        if state is None:
            break
        accuracy = _accuracy(iterate.gradient_norm, iterate.evaluation.sensitivity, goal, stopping)
        evaluation, knowledge = oracle.evaluate(problem, iterate.evaluation.v, state, accuracy)
        if not evaluation.finite:
            break
        evaluation = space.completed(evaluation)
        norm = space.stationarity(evaluation)
        iterate = replace(
            iterate,
            evaluation=evaluation,
            gradient_norm=norm,
            oracle=knowledge,
            evaluations=iterate.evaluations + 1,
        )
        iterate = _confirmed(iterate, problem, oracle, space, goal, stopping, interrupted)
    return iterate


def _hessian(problem: OuterProblem, oracle: Oracle, current: Iterate) -> HessianProduct | None:
    if not isinstance(oracle, SecondOrderOracle):
        return None
    return oracle.hessian(problem, current.evaluation.v, current.oracle)


def _accuracy(gradient_norm: float, sensitivity: float, goal: float, stopping: Stopping) -> Accuracy:
    """Tie the accuracy of the next evaluation to the gradient that is meant to be left.

    Errors of a few per cent of the gradient cost the outer method no iterations, smaller ones inner steps.
    """
    wanted = 0.03 * max(gradient_norm, goal) / sensitivity if sensitivity > 0.0 else math.inf
    value = min(max(wanted, 1e-4 * stopping.certificate), stopping.roughest)
    return Accuracy(value, value)
