"""The outer loop that every method shares: evaluate, accept or shorten the step, stop for a stated reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

from .bilevel import BilevelProblem
from .outer.base import Evaluation, Feasible, OuterMethod

Status = Literal["converged", "stopped", "interrupted", "failed"]

_MOST_BAD_EVALUATIONS = 30


@dataclass(frozen=True)
class Stopping:
    """When to stop.

    Attributes:
        iterations: most outer iterations.
        rtol, atol: goals for the norm of the gradient, relative to the first one and absolute.
        certificate: both relative residuals (state and adjoint) must be at most this as well.
    """

    iterations: int = 200
    rtol: float = 1e-8
    atol: float = 0.0
    certificate: float = 1e-8


@dataclass(frozen=True)
class Accuracy:
    """How well the next evaluation has to be solved: relative residuals of the state and of the adjoint system."""

    state: float
    adjoint: float


class Oracle(Protocol):
    """Evaluates the reduced objective and its derivative; what makes one method differ from another."""

    name: str

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> OracleState: ...

    def evaluate(
        self, problem: BilevelProblem, v: Tensor, state: OracleState, accuracy: Accuracy
    ) -> tuple[Evaluation, OracleState]: ...


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


@dataclass(frozen=True)
class Iterate:
    """One accepted outer iterate, as told to the callback and kept in the history."""

    iteration: int
    evaluation: Evaluation
    gradient_norm: float
    step: float
    evaluations: int
    oracle: OracleState


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


def minimise(
    problem: BilevelProblem,
    oracle: Oracle,
    outer: OuterMethod,
    stopping: Stopping,
    callback: Callable[[Iterate], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Minimum:
    """Minimise Phi(v) = f(u*(v), v).

    Args:
        problem: what to minimise.
        oracle: how Phi and its derivative are found.
        outer: how v moves.
        stopping: when to stop.
        callback: told every accepted iterate, the first one included.
        interrupted: asked before every evaluation; true ends the run with the iterate it has.

    """
    space = Feasible(problem.outer_metric, problem.bounds, problem.quadratic and problem.bounds is None)
    tell = callback or (lambda iterate: None)

    u, v = problem.start()
    v = space.project(v)
    knowledge = oracle.init(problem, u, v)
    accuracy = Accuracy(stopping.certificate, stopping.certificate)
    evaluation, knowledge = oracle.evaluate(problem, v, knowledge, accuracy)
    first = current = Iterate(0, evaluation, space.stationarity(evaluation), 0.0, 1, knowledge)
    if not evaluation.finite:
        message = evaluation.message or "the objective or its gradient is not finite"
        return Minimum(current, first, "failed", f"at the starting point: {message}")
    tell(current)
    goal = max(stopping.rtol * first.gradient_norm, stopping.atol)
    state = outer.init(space, evaluation)
    evaluations, bad = 1, 0

    while True:
        small = current.gradient_norm <= goal
        certified = _worst(current.evaluation) <= stopping.certificate and not current.evaluation.blended
        if small and certified:
            return Minimum(current, first, "converged", _converged(current, first, stopping))
        if current.iteration == stopping.iterations:
            return Minimum(current, first, "stopped", _out_of_iterations(current, goal, stopping))
        if state.failure:
            return Minimum(current, first, "stopped", f"{state.failure}; {_standing(current, first, stopping)}")
        if interrupted():
            return Minimum(current, first, "interrupted", f"interrupted; {_standing(current, first, stopping)}")

        accuracy = _accuracy(current, goal, stopping)
        if small:
            # Small, but known from other points or not well enough: evaluate this very point.
            point, accuracy = current.evaluation.v, Accuracy(stopping.certificate, stopping.certificate)
            evaluation, knowledge = oracle.evaluate(problem, point, knowledge, accuracy)
            evaluations += 1
            if not current.evaluation.blended and not _worst(evaluation) < _worst(current.evaluation):
                return Minimum(current, first, "stopped", _uncertified(current, stopping))
            state = outer.init(space, evaluation)
            current = replace(
                current,
                evaluation=evaluation,
                gradient_norm=space.stationarity(evaluation),
                evaluations=evaluations,
                oracle=knowledge,
            )
            tell(current)
            continue

        previous = knowledge
        evaluation, knowledge = oracle.evaluate(problem, outer.propose(space, state), previous, accuracy)
        evaluations += 1
        if not evaluation.finite:
            # A failed inner solve is a step that was too long: shorten it, and start again from what was good.
            knowledge, bad = previous, bad + 1
            if bad > _MOST_BAD_EVALUATIONS:
                reason = evaluation.message or "the objective or its gradient is not finite"
                return Minimum(current, first, "failed", f"every step tried fails: {reason}")
        state = outer.update(space, state, evaluation)
        if not state.accepted:
            continue
        bad = 0
        if not state.best.finite or state.best.value > 1e6 * (abs(first.evaluation.value) + 1e-300):
            return Minimum(current, first, "failed", _diverged(state.best, first))
        if state.share != 1.0:
            knowledge = current.oracle.blend(knowledge, state.share)
        current = Iterate(
            current.iteration + 1, state.best, space.stationarity(state.best), state.step, evaluations, knowledge
        )
        tell(current)


def _accuracy(current: Iterate, goal: float, stopping: Stopping) -> Accuracy:
    """Tie the accuracy of the next evaluation to the gradient that is left.

    `gradient_error` is about proportional to the residuals, so that residuals smaller by a tenth of |gradient| over
    |gradient error| leave the direction of the gradient right.
    """
    evaluation = current.evaluation
    worst = _worst(evaluation)
    sensitivity = evaluation.gradient_error / worst if worst > 0.0 else 0.0
    wanted = 0.1 * max(current.gradient_norm, goal) / sensitivity if sensitivity > 0.0 else math.inf
    value = min(max(wanted, 1e-2 * stopping.certificate), 1e-3)
    return Accuracy(value, value)


def _worst(evaluation: Evaluation) -> float:
    return max(evaluation.state_error, evaluation.adjoint_error)


def _relative(current: Iterate, first: Iterate) -> str:
    return f"{current.gradient_norm / first.gradient_norm:.1e}" if first.gradient_norm > 0.0 else "0"


def _converged(current: Iterate, first: Iterate, stopping: Stopping) -> str:
    return (
        f"relative gradient {_relative(current, first)} (goal {stopping.rtol:.0e}), "
        f"objective {current.evaluation.value:.9e}, error of the gradient about {current.evaluation.gradient_error:.0e}"
    )


def _standing(current: Iterate, first: Iterate, stopping: Stopping) -> str:
    return f"relative gradient {_relative(current, first)} (goal {stopping.rtol:.0e})"


def _certificates(evaluation: Evaluation) -> str:
    return f"state residual {evaluation.state_error:.1e}, adjoint residual {evaluation.adjoint_error:.1e}"


def _out_of_iterations(current: Iterate, goal: float, stopping: Stopping) -> str:
    text = f"{stopping.iterations} outer iterations ended with gradient norm {current.gradient_norm:.1e} (goal {goal:.1e})"
    if _worst(current.evaluation) > stopping.certificate:
        text += f"; {_certificates(current.evaluation)}: the gradient is only as good as these"
    return text


def _uncertified(current: Iterate, stopping: Stopping) -> str:
    return (
        f"the gradient is small but not certified: {_certificates(current.evaluation)} "
        f"(goal {stopping.certificate:.0e} for both)"
    )


def _diverged(evaluation: Evaluation, first: Iterate) -> str:
    if not evaluation.finite:
        return evaluation.message or "the objective or its gradient is not finite"
    return f"the objective grew from {first.evaluation.value:.3e} to {evaluation.value:.3e}: a smaller step is needed"


def finite(*tensors: Tensor) -> bool:
    """Every number of every tensor is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
