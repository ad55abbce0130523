"""Common parts of the compared methods: their state, gradient steps in the inner metric, and the end of an evaluation.

Every method takes its steps in the inner product K of the inner space, in which K^-1 H is well conditioned. In their
papers the metric is the identity, with which all of them would be slow for an ill-conditioned H.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self, TypeVar

import torch
from torch import Tensor

from ..engine.bilevel import BilevelProblem, InnerBatch, inner_spectrum
from ..engine.certificate import Sensitivity
from ..engine.oracle import blended, finite
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from ..engine.stability import UNKNOWN, Stability, StableProblem, estimated
from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import paired_length, quotient

# Errors fall by a factor of e in a relaxation time, so that 5 % of them are left after three.
_RELAXATIONS = 3.0
# Largest number of gradient steps in one evaluation, however large the condition number is.
_MOST_STEPS = 1000
# A spectrum is estimated again once u has moved by this share of its length.
_MOVED = 0.1
# A relative residual below this is a rounding error, which steps do not reduce.
ROUNDING = 1e-12


@dataclass(frozen=True)
class MethodState:
    """Data that a compared method keeps between evaluations.

    Attributes:
        u: (S, n) inner variables.
        q: (S, n) the solution of H q = df/du as far as it is known; None before the first evaluation.
        generator: source of the random numbers.
        spectrum: estimates (mu, L) of the ends of the spectrum of K^-1 H.
        spectrum_at: (S, n) the u it belongs to.
        sensitivity: the effect of errors of u and q on the hypergradient.
        description: a few words for people.
        stability: the inf-sup constant, by which residuals are divided.
    """

    u: Tensor
    q: Tensor | None
    generator: torch.Generator
    spectrum: tuple[float, float]
    spectrum_at: Tensor
    description: str
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    stability: Stability = UNKNOWN

    def blend(self, other: Self, share: float) -> Self:
        return replace(other, u=torch.lerp(self.u, other.u, share), q=blended(self.q, other.q, share))


State = TypeVar("State", bound=MethodState)


def start(problem: BilevelProblem, u: Tensor, v: Tensor, description: str, seed: int = 0) -> MethodState:
    """The state before the first evaluation; the spectrum takes 20 products with the expected Hessian."""
    generator = torch.Generator().manual_seed(seed)
    return MethodState(u, None, generator, inner_spectrum(problem, u, v), u, description)


def surveyed(problem: BilevelProblem, u: Tensor, v: Tensor, state: State) -> State:
    """The state with the spectrum at (u, v), estimated again where u has moved and H is not constant."""
    norm = problem.inner_metric.norm
    if problem.quadratic or norm(u - state.spectrum_at) <= _MOVED * norm(u) or not finite(u):
        return state
    return replace(state, spectrum=inner_spectrum(problem, u, v), spectrum_at=u)


def gradient_step(spectrum: tuple[float, float]) -> float:
    """2 / (mu + L), with which gradient steps on the expected objective contract fastest."""
    total = spectrum[0] + spectrum[1]
    return 2.0 / total if total > 0.0 else math.nan


def sampled_step(batch: InnerBatch, spectrum: tuple[float, float]) -> float:
    """The step of a batch that is stable in mean square where K^-1 H is at most L."""
    return batch.step / spectrum[1] if spectrum[1] > 0.0 else math.nan


def relaxation_steps(spectrum: tuple[float, float], step: float, times: float = _RELAXATIONS) -> int:
    """The number of gradient steps that reduce an error to exp(-times), which is of the order of the condition number
    of a batch.

    It is one where the spectrum is not finite, as after a step of v that was far too long: the step fails all the same.
    """
    rate = step * spectrum[0]
    if not math.isfinite(rate):
        return 1
    return max(math.ceil(times / rate), 1) if rate * _MOST_STEPS > times else _MOST_STEPS


def draw(problem: BilevelProblem, u: Tensor, v: Tensor, tests: int, state: MethodState) -> InnerBatch:
    """A fresh batch at (u, v)."""
    return problem.batch(u, v, problem.sample(tests, state.generator))


def gradient_descent(
    problem: BilevelProblem,
    v: Tensor,
    state: State,
    steps: int,
    step: float | None,
    tolerance: float,
) -> tuple[Tensor, int, State]:
    """At most `steps` steps u <- u - step K^-1 grad_u E l; returns the new u, the steps taken, and the state with its
    spectrum.

    They end where |K^-1 g| <= mu tolerance |u|, which bounds the relative error of u in a strongly convex problem
    (Pedregosa 2016, arXiv 1602.02355, Algorithm 1). Without a given step, the best one of the spectrum is used; a
    gradient that grows shows that L has grown since it was estimated, and L is doubled.
    """
    metric, (mu, largest) = problem.inner_metric, state.spectrum
    u = before = state.u
    previous, taken = math.inf, 0
    for _ in range(steps):
        gradient = problem.inner_gradient(u, v)
        direction = metric.gradient(gradient)
        length = paired_length(gradient, direction)
        if length <= mu * max(tolerance, ROUNDING) * metric.norm(u):
            break
        if step is None and not length <= 1.1 * previous:
            u, largest = before, 2.0 * largest
            continue
        before, previous, taken = u, length, taken + 1
        u = u - (step or gradient_step((mu, largest))) * direction
    return u, taken, surveyed(problem, u, v, replace(state, spectrum=(mu, largest)))


def sampled_descent(
    problem: BilevelProblem, v: Tensor, state: State, tests: int, steps: int | None, step: float | None
) -> tuple[Tensor, int, State]:
    """The same with the gradient of a fresh batch in every step, and as many steps as a relaxation takes if None."""
    state = surveyed(problem, state.u, v, state)
    u, taken = state.u, 0
    while steps is None or taken < steps:
        batch = draw(problem, u, v, tests, state)
        length = step or sampled_step(batch, state.spectrum)
        steps = steps or relaxation_steps(state.spectrum, length)
        u = u - length * problem.inner_metric.gradient(batch.gradient)
        taken += 1
    return u, taken, surveyed(problem, u, v, state)


def sampled_state_error(problem: BilevelProblem, batch: InnerBatch, u: Tensor, v: Tensor) -> float:
    """Relative residual of the state, estimated by a batch at u; 1 for u = 0, to which nothing is relative."""
    length = problem.inner_length(u, v)
    if length > 0.0:
        return batch.residual / length
    return 1.0 if batch.residual > 0.0 else 0.0


def sampled_adjoint_error(problem: BilevelProblem, residual: Tensor, right: Tensor) -> float:
    """Relative size of the residual df/du - H q with a batch's H, in a norm that takes no solve."""
    scale = problem.inner_metric.dual_norm_estimate(right)
    return problem.inner_metric.dual_norm_estimate(residual) / scale if scale > 0.0 else 0.0


def conclude(
    problem: BilevelProblem,
    v: Tensor,
    before: State,
    after: State,
    parts: tuple[Tensor, Tensor],
    errors: tuple[float, float],
    steps: tuple[int, int],
    at: tuple[Tensor, Tensor] | None = None,
) -> tuple[Evaluation, State]:
    """The evaluation and the state of a method; a failed one and the state before it where the method diverged.

    Args:
        before, after: the states.
        parts: df/dv and -(d2_vu g)^T q, (p,); their sum is the hypergradient.
        errors: relative residuals of the state and of the linear system.
        steps: inner and linear steps taken.
        at: u and q (S, n) from which the hypergradient was formed, if not those of `after`.
    """
    assert after.q is not None
    (u, q), (direct, indirect) = at or (after.u, after.q), parts
    if not finite(after.u, after.q, u, q, direct, indirect):
        return failed_evaluation(v, f"{after.description}: the iteration diverged; a smaller step is needed"), before
    stability = _stability(problem, u, v, before.stability)
    errors = errors[0] / stability.value, errors[1] / stability.value
    # The error of u or q is the residual up to the condition number.
    mu, largest = after.spectrum
    condition = quotient(largest, mu) if largest >= 0.0 else math.nan
    sensitivity = before.sensitivity.updated(problem, u, q, indirect, max(errors) * condition)
    derivative = direct + indirect
    evaluation = Evaluation(
        v=v,
        value=problem.outer_value(u, v),
        derivative=derivative,
        gradient=problem.outer_metric.gradient(derivative[None])[0],
        state_error=errors[0],
        adjoint_error=errors[1],
        sensitivity=sensitivity.value,
        inner_steps=steps[0],
        refinement_steps=steps[1],
    )
    if not evaluation.finite:
        return evaluation, before
    return evaluation, replace(after, sensitivity=sensitivity, stability=stability)


def _stability(problem: BilevelProblem, u: Tensor, v: Tensor, before: Stability) -> Stability:
    """The inf-sup constant at (u, v), estimated as `nhgd` and `adjoint` do, where J is not positive definite.

    A method that diverges may reach a point where J is singular: nothing more is known there.
    """
    if u.shape[0] > 1 or not isinstance(problem, StableProblem) or problem.jacobian_kind.hessian:
        return before
    try:
        return estimated(problem, u, v, before, partial(problem.state_factors, u, v))
    except SingularMatrixError:
        return before
