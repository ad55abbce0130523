"""What methods have in common that look at a minibatch of scenarios in each evaluation, beside the nominal one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from torch import Tensor

from ...linalg.factorisation import SingularMatrixError
from ..nhgd import NHGD
from ..oracle import Accuracy
from ..outer.base import Evaluation, HessianProduct, failed_evaluation
from ..plain import from_plain, to_plain
from .problem import ScenarioProblem
from .solved import Middle, Solved

# A frozen dataclass with the state of the nominal scenario in it as `nominal`.
State = TypeVar("State", bound=Any)


@dataclass(frozen=True)
class Minibatches(ABC, Generic[State]):
    """An `Oracle` but for its states.

    Attributes:
        base: the method for the nominal scenario, whose curvature is pointwise.
    """

    base: NHGD

    def evaluate(
        self, problem: ScenarioProblem, v: Tensor, state: State, accuracy: Accuracy
    ) -> tuple[Evaluation, State]:
        """One evaluation over a minibatch; a singular linearisation makes it a failed one."""
        try:
            return self._evaluate(problem, v, state, accuracy)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state

    @abstractmethod
    def _evaluate(
        self, problem: ScenarioProblem, v: Tensor, state: State, accuracy: Accuracy
    ) -> tuple[Evaluation, State]: ...

    def hessian(self, problem: ScenarioProblem, v: Tensor, state: State) -> HessianProduct:
        """Of the nominal scenario."""
        return self.base.hessian(problem.nominal, v, state.nominal)

    def save(self, state: State) -> dict[str, Any]:
        rest = to_plain(replace(state, nominal=None))
        return {"state": rest, "nominal": self.base.save(state.nominal)}

    def restore(self, problem: ScenarioProblem, saved: dict[str, Any]) -> State:
        nominal = self.base.restore(problem.nominal, saved["nominal"])
        state: State = from_plain(saved["state"], problem.start()[0].device)
        return replace(state, nominal=nominal)


def beside_nominal(
    problem: ScenarioProblem,
    v: Tensor,
    middle: Middle,
    found: Solved,
    more: tuple[Tensor, float],
    error: float,
    count: int,
) -> Evaluation:
    """The evaluation of the nominal scenario and of what the others differ from it.

    Args:
        problem: with the terms in v alone.
        v: (p,).
        middle: the nominal scenario.
        found: the minibatch, whose certificates are reported.
        more: of hypergradient (p,) and value.
        error: of the first, in the norm of the gradient.
        count: scenarios in the minibatch.
    """
    derivative = middle.derivative + more[0] + problem.nominal.control_derivative(v)
    return Evaluation(
        v=v,
        value=middle.value + more[1] + problem.nominal.control_value(v),
        derivative=derivative,
        gradient=problem.outer_metric.gradient(derivative[None])[0],
        state_error=found.state_error,
        adjoint_error=found.adjoint_error,
        sensitivity=middle.sensitivity,
        inner_steps=found.state_steps,
        refinement_steps=found.adjoint_steps,
        sampling_error=error,
        scenarios=count,
    )
