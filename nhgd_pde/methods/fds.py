"""Forward-mode differentiation with sharing (FDS): the derivative of the state is carried forward with the state.

    u_k = step(u_{k-1}, v),   Z_k = (dstep/du) Z_{k-1} + dstep/dv,   h = df/dv + sum_k Z_k^T df/du_k

Micaelli and Storkey 2021, Gradient-based Hyperparameter Optimization Over Long Horizons, arXiv 2007.07869. No state is
kept, so that the memory does not depend on the number of steps. Time and memory are proportional to the number of outer
variables, which is small because steps that follow each other share them (`control.windows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..engine.bilevel import OuterProblem
from ..engine.oracle import Accuracy, finite
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from ..engine.scales import GradientScales
from ..linalg.safe_lengths import paired_length
from .compared_method import Compared

# A state with a larger relative residual than this is no solution of its equation.
_SOLVED = 1e-6


class Passed(Protocol):
    """What some steps have contributed, and what is carried on.

    Attributes:
        value: of the objective in these steps.
        direct, indirect: (p,) its derivative at fixed states, and that through the states.
        state: (N,) the state at the end, and `derivative` (p, N) that by v.
        state_error, derivative_error: relative residuals of both systems.
        place: the steps, for messages.
    """

    @property
    def value(self) -> float: ...
    @property
    def direct(self) -> Tensor: ...
    @property
    def indirect(self) -> Tensor: ...
    @property
    def state(self) -> Tensor: ...
    @property
    def derivative(self) -> Tensor: ...
    @property
    def state_error(self) -> float: ...
    @property
    def derivative_error(self) -> float: ...
    @property
    def place(self) -> str: ...


class Steps(Protocol):
    """Some steps of an evolution in a row."""

    def passed(self, v: Tensor, state: Tensor, derivative: Tensor) -> Passed: ...


class ForwardProblem(OuterProblem, Protocol):
    """A problem whose inner variables are the last state of an evolution."""

    def first_state(self, v: Tensor) -> Tensor:
        """(N,) the state at the beginning, which does not depend on v here."""
        ...

    def parts(self) -> Iterator[Steps]:
        """All steps in their order."""
        ...

    def inner(self, state: Tensor) -> Tensor:
        """A state (N,) as inner variables (S, n)."""
        ...

    def control_value(self, v: Tensor) -> float:
        """The terms of the objective in v alone."""
        ...

    def control_derivative(self, v: Tensor) -> Tensor: ...
    def refusal(self, v: Tensor) -> str:
        """Why there is no state at v; empty where there is one."""
        ...


@dataclass(frozen=True)
class ForwardState:
    """The last state of the evolution, (S, n), and the norms of both parts of the last gradient, added up."""

    u: Tensor
    natural: float = 0.0
    q: None = None
    description: str = "derivatives carried forward"

    def blend(self, other: ForwardState, share: float) -> ForwardState:
        return ForwardState(torch.lerp(self.u, other.u, share), other.natural)


@dataclass(frozen=True)
class FDS(Compared):
    """Options; an `Oracle` for a `ForwardProblem`."""

    name: str = "fds"
    summary: ClassVar[str] = "forward-mode differentiation with sharing"

    def init(self, problem: ForwardProblem, u: Tensor, v: Tensor) -> ForwardState:
        return ForwardState(u)

    def evaluate(
        self, problem: ForwardProblem, v: Tensor, state: ForwardState, accuracy: Accuracy
    ) -> tuple[Evaluation, ForwardState]:
        if said := problem.refusal(v):
            return failed_evaluation(v, said), state
        u = problem.first_state(v)
        z = u.new_zeros(len(v), len(u))
        value, direct, indirect = problem.control_value(v), problem.control_derivative(v), torch.zeros_like(v)
        errors = 0.0, 0.0
        for steps in problem.parts():
            passed = steps.passed(v, u, z)
            if not passed.state_error <= _SOLVED:
                message = f"the state equation is not solved in {passed.place}: "
                return failed_evaluation(v, f"{message}a relative residual of {passed.state_error:.1e} is left"), state
            value += passed.value
            direct, indirect = direct + passed.direct, indirect + passed.indirect
            u, z = passed.state, passed.derivative
            errors = max(errors[0], passed.state_error), max(errors[1], passed.derivative_error)
        derivative = direct + indirect
        gradient = problem.outer_metric.gradient(derivative[None])[0]
        parts = [paired_length(each, problem.outer_metric.gradient(each[None])[0]) for each in (direct, indirect)]
        evaluation = Evaluation(
            v=v,
            value=value,
            derivative=derivative,
            gradient=gradient,
            state_error=errors[0],
            adjoint_error=errors[1],
            # A relative error of one in the derivatives of the states is one in this part of the gradient.
            sensitivity=parts[1],
        )
        return evaluation, ForwardState(problem.inner(u), sum(parts)) if finite(u, derivative) else state

    def scales(self, problem: ForwardProblem, v: Tensor, state: ForwardState, evaluation: Evaluation) -> GradientScales:
        """Of both parts of the gradient; that of the state's rounding errors would take another evaluation."""
        return GradientScales.of_parts(state.natural, evaluation.state_error + evaluation.adjoint_error)
