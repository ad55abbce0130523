"""The outer loop that every method shares: evaluate, accept or shorten the step, stop for a stated reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from .bilevel import BilevelProblem, constraint_of, l1_weights_of
from .outer.base import Evaluation, Feasible, HessianProduct, OuterMethod, OuterState, failed_evaluation

Status = Literal["converged", "stopped", "interrupted", "failed"]

# With a tenth of the step each time this is hopeless; a line search gives up a little later.
_MOST_BAD_EVALUATIONS = 20


@dataclass(frozen=True)
class Stopping:
    """When to stop.

    Attributes:
        iterations: most outer iterations.
        rtol, atol: goals for the norm of the gradient, relative to the first one and absolute.
        certificate: both relative residuals (state and adjoint) must be at most this as well.
        change: enough, too, is a step that changes no component of v by more than this; None: it is not.
    """

    iterations: int = 200
    rtol: float = 1e-8
    atol: float = 0.0
    certificate: float = 1e-8
    change: float | None = None

    def unchanged(self, change: float) -> bool:
        return self.change is not None and change <= self.change


@dataclass(frozen=True)
class Accuracy:
    """How well the next evaluation has to be solved: relative residuals of state and adjoint system."""

    state: float
    adjoint: float


class OracleState(Protocol):
    """What an oracle keeps between evaluations: at least the inner variables and the adjoint solution."""

    @property
    def u(self) -> Tensor: ...
    @property
    def q(self) -> Tensor | None: ...
    @property
    def description(self) -> str: ...

    def blend(self, other: Self, share: float) -> Self:
        """The state at self + share (other - self), where u* and the adjoint are affine in v."""
        ...


Problem = TypeVar("Problem", bound=BilevelProblem, contravariant=True)
State = TypeVar("State", bound=OracleState)


class Oracle(Protocol[Problem, State]):
    """Evaluates the reduced objective and its derivative; what makes one method differ from another."""

    @property
    def name(self) -> str: ...

    def init(self, problem: Problem, u: Tensor, v: Tensor) -> State: ...

    def evaluate(self, problem: Problem, v: Tensor, state: State, accuracy: Accuracy) -> tuple[Evaluation, State]:
        """Evaluate at v, and give the state to go on from; where the evaluation is not finite, one that is good."""
        ...


@runtime_checkable
class SecondOrderOracle(Protocol):
    """An oracle that also has second derivatives, for the outer methods that ask for them."""

    def hessian(self, problem: Any, v: Tensor, state: Any) -> HessianProduct:
        """The Hessian of Phi at v, where an evaluation has left `state`; costs nothing until it is applied."""
        ...


@dataclass(frozen=True)
class Unsolved:
    """The state of an oracle that could not even be set up."""

    u: Tensor
    q: Tensor | None = None
    description: str = "none"

    def blend(self, other: Unsolved, share: float) -> Unsolved:
        return other


@dataclass(frozen=True)
class Iterate:
    """One accepted outer iterate, as told to the callback and kept in the history.

    `change` is the largest that the last step made to a component of v.
    """

    iteration: int
    evaluation: Evaluation
    gradient_norm: float
    step: float
    evaluations: int
    oracle: OracleState
    change: float = math.inf


@dataclass(frozen=True)
class Minimum:
    """What the loop found.

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
    """Where the loop stands between two evaluations: with the problem and the options, all it needs to go on.

    Attributes:
        first, current: the starting point and the current iterate.
        outer: what the outer method knows.
        knowledge: the oracle's state after the last evaluation.
        evaluations: so far.
        bad: evaluations that failed since the current iterate.
        sensitivity: at the last point that could be evaluated.
    """

    first: Iterate
    current: Iterate
    outer: OuterState
    knowledge: OracleState
    evaluations: int
    bad: int
    sensitivity: float


def minimise(
    problem: BilevelProblem,
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

    while True:
        end = _end(loop, goal, stopping, interrupted)
        if end is not None:
            keep(loop, True)
            return end
        current, evaluations, bad, sensitivity = loop.current, loop.evaluations + 1, loop.bad, loop.sensitivity
        proposal, state = outer.propose(space, loop.outer, _hessian(problem, oracle, current))
        accuracy = _accuracy(state.reduction * current.gradient_norm, sensitivity, goal, stopping)
        evaluation, knowledge = oracle.evaluate(problem, proposal, loop.knowledge, accuracy)
        evaluation = space.completed(evaluation)
        if not evaluation.finite:
            # A failed inner solve is a step that was too long: shorten it.
            bad += 1
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
            # Where the hypergradient is biased, values integrated from slopes are not those of the objective.
            value = problem.outer_value(knowledge.u, state.best.v) + space.l1(state.best.v)
            state = outer.revalued(state, value)
        if not state.best.finite or state.best.value > 1e6 * (abs(first.evaluation.value) + 1e-300):
            return Minimum(current, first, "failed", _diverged(state.best, first))
        reached = Iterate(
            iteration=current.iteration + 1,
            evaluation=state.best,
            gradient_norm=space.stationarity(state.best),
            step=state.step,
            evaluations=evaluations,
            oracle=knowledge,
            change=float((state.best.v - current.evaluation.v).abs().max()),
        )
        current = _confirmed(reached, problem, oracle, space, goal, stopping, interrupted)
        if current.evaluation is not reached.evaluation:
            state = outer.init(space, current.evaluation)
        loop = LoopState(first, current, state, current.oracle, current.evaluations, 0, sensitivity)
        tell(current)
        keep(loop, False)


def outer_space(problem: BilevelProblem) -> Feasible:
    """The space that the outer variables of a problem move in."""
    constraint, weights = constraint_of(problem), l1_weights_of(problem)
    space = Feasible(problem.outer_metric, problem.bounds, False, constraint, weights)
    return replace(space, quadratic=problem.quadratic and constraint is None)


def _start(
    problem: BilevelProblem,
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
    state = outer.init(space, first.evaluation)
    return LoopState(first, first, state, first.oracle, first.evaluations, 0, first.evaluation.sensitivity)


def _end(loop: LoopState, goal: float, stopping: Stopping, interrupted: Callable[[], bool]) -> Minimum | None:
    """The result, where it is time to stop."""
    first, current = loop.first, loop.current
    small = current.gradient_norm <= goal
    if (small or stopping.unchanged(current.change)) and _certified(current.evaluation, stopping):
        return Minimum(current, first, "converged", _converged(current, first, goal, stopping))
    if interrupted():
        return Minimum(current, first, "interrupted", f"interrupted; {_standing(current, first, goal, stopping)}")
    if small or stopping.unchanged(current.change):
        return Minimum(current, first, "stopped", _uncertified(current, stopping))
    if current.iteration >= stopping.iterations:
        return Minimum(current, first, "stopped", _out_of_iterations(current, goal, stopping))
    if loop.outer.failure:
        message = f"{loop.outer.failure}; {_standing(current, first, goal, stopping)}"
        return Minimum(current, first, "stopped", message)
    return None


def _confirmed(
    iterate: Iterate,
    problem: BilevelProblem,
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
        return iterate.gradient_norm <= goal or stopping.unchanged(iterate.change)

    while last() and not _certified(iterate.evaluation, stopping):
        if interrupted():
            break
        evaluation, knowledge = oracle.evaluate(problem, iterate.evaluation.v, iterate.oracle, accuracy)
        iterate = replace(iterate, evaluations=iterate.evaluations + 1)
        better = iterate.evaluation.blended or _worst(evaluation) <= 0.5 * _worst(iterate.evaluation)
        if not (evaluation.finite and better):
            break
        evaluation = space.completed(evaluation)
        norm = space.stationarity(evaluation)
        iterate = replace(iterate, evaluation=evaluation, gradient_norm=norm, oracle=knowledge)
    return iterate


def _hessian(problem: BilevelProblem, oracle: Oracle, current: Iterate) -> HessianProduct | None:
    if not isinstance(oracle, SecondOrderOracle):
        return None
    return oracle.hessian(problem, current.evaluation.v, current.oracle)


def _accuracy(gradient_norm: float, sensitivity: float, goal: float, stopping: Stopping) -> Accuracy:
    """Tie the accuracy of the next evaluation to the gradient that is meant to be left.

    Errors of a few per cent of the gradient cost the outer method no iterations, smaller ones inner steps.
    """
    wanted = 0.03 * max(gradient_norm, goal) / sensitivity if sensitivity > 0.0 else math.inf
    value = min(max(wanted, 1e-4 * stopping.certificate), 1e-3)
    return Accuracy(value, value)


def _worst(evaluation: Evaluation) -> float:
    return max(evaluation.state_error, evaluation.adjoint_error)


def _certified(evaluation: Evaluation, stopping: Stopping) -> bool:
    return _worst(evaluation) <= stopping.certificate and not evaluation.blended


def _relative(current: Iterate, first: Iterate) -> str:
    return f"{current.gradient_norm / first.gradient_norm:.1e}" if first.gradient_norm > 0.0 else "0"


def _converged(current: Iterate, first: Iterate, goal: float, stopping: Stopping) -> str:
    reason = _gradient(current, first, goal)
    if current.gradient_norm > goal:
        reason = f"the last step changed v by at most {current.change:.1e} (goal {stopping.change:.0e}), {reason}"
    return (
        f"{reason}, objective {current.evaluation.value:.9e}, "
        f"error of the gradient about {current.evaluation.gradient_error:.0e}"
    )


def _gradient(current: Iterate, first: Iterate, goal: float) -> str:
    relative = f"{goal / first.gradient_norm:.0e}" if first.gradient_norm > 0.0 else "0"
    return f"relative gradient {_relative(current, first)} (goal {relative})"


def _standing(current: Iterate, first: Iterate, goal: float, stopping: Stopping) -> str:
    return _gradient(current, first, goal) + _doubt(current, stopping)


def _doubt(current: Iterate, stopping: Stopping) -> str:
    if _worst(current.evaluation) <= stopping.certificate:
        return ""
    return f"; {_certificates(current.evaluation)}: the gradient is only as good as these"


def _certificates(evaluation: Evaluation) -> str:
    return f"state residual {evaluation.state_error:.1e}, adjoint residual {evaluation.adjoint_error:.1e}"


def _out_of_iterations(current: Iterate, goal: float, stopping: Stopping) -> str:
    norms = f"gradient norm {current.gradient_norm:.1e} (goal {goal:.1e})"
    return f"{stopping.iterations} outer iterations ended with {norms}{_doubt(current, stopping)}"


def _uncertified(current: Iterate, stopping: Stopping) -> str:
    if current.evaluation.blended:
        return "the gradient is small, but the point it was extrapolated to could not be evaluated"
    small = "change of v" if stopping.unchanged(current.change) else "gradient"
    return (
        f"the {small} is small but not certified: {_certificates(current.evaluation)} "
        f"(goal {stopping.certificate:.0e} for both)"
    )


def _diverged(evaluation: Evaluation, first: Iterate) -> str:
    if not evaluation.finite:
        return evaluation.message or "the objective or its gradient is not finite"
    grown = f"from {first.evaluation.value:.3e} to {evaluation.value:.3e}"
    return f"the objective grew {grown}: a smaller step is needed"


def finite(*tensors: Tensor) -> bool:
    """Every number of every tensor is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
