"""The base of methods that use the nominal scenario and a minibatch of others in each evaluation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ...linalg.factorisation import SingularMatrixError
from ..nhgd import NHGD
from ..oracle import Accuracy
from ..outer.base import HessianProduct
from ..outer.reduced_objective import Evaluation, failed_evaluation
from ..plain import from_plain, to_plain
from .nominal_point import NominalPoint
from .part_solution import PartSolution
from .scenario_bilevel import ScenarioBilevelProblem

# A frozen dataclass with the state of the nominal scenario as its field `nominal`.
State = TypeVar("State", bound=Any)


@dataclass(frozen=True)
class Minibatches(ABC, Generic[State]):
    """An `Oracle`, apart from its states.

    Attributes:
        base: the method for the nominal scenario, whose curvature is pointwise.
    """

    base: NHGD

    def evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: State, accuracy: Accuracy
    ) -> tuple[Evaluation, State]:
        """One evaluation over a minibatch; a singular linearisation makes it a failed one."""
        try:
            return self._evaluate(problem, v, state, accuracy)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state

    @abstractmethod
    def _evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: State, accuracy: Accuracy
    ) -> tuple[Evaluation, State]: ...

    def hessian(self, problem: ScenarioBilevelProblem, v: Tensor, state: State) -> HessianProduct:
        """The Hessian of the nominal scenario."""
        return self.base.hessian(problem.nominal, v, state.nominal)

    def save(self, state: State) -> dict[str, Any]:
        rest = to_plain(replace(state, nominal=None))
        return {"state": rest, "nominal": self.base.save(state.nominal)}

    def restore(self, problem: ScenarioBilevelProblem, saved: dict[str, Any]) -> State:
        nominal = self.base.restore(problem.nominal, saved["nominal"])
        state: State = from_plain(saved["state"], problem.start()[0].device)
        return replace(state, nominal=nominal)


def beside_nominal(
    problem: ScenarioBilevelProblem,
    v: Tensor,
    nominal_point: NominalPoint,
    found: PartSolution,
    more: tuple[Tensor, float],
    error: float,
    count: int,
) -> Evaluation:
    """The evaluation from the nominal scenario and the estimated difference of the others from it.

    `more` has the estimated differences of hypergradient (p,) and value from the nominal ones, and `error` is the
    standard error of the first in the norm of the gradient. The certificates are those of a minibatch `found` of
    `count` scenarios.
    """
    derivative = nominal_point.derivative + more[0] + problem.nominal.control_derivative(v)
    return Evaluation(
        v=v,
        value=nominal_point.value + more[1] + problem.nominal.control_value(v),
        derivative=derivative,
        gradient=problem.outer_metric.gradient(derivative[None])[0],
        state_error=found.state_error,
        adjoint_error=found.adjoint_error,
        sensitivity=nominal_point.sensitivity,
        inner_steps=found.state_steps,
        refinement_steps=found.adjoint_steps,
        sampling_error=error,
        scenarios=count,
    )


def next_batch(left: Tensor, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers of the next scenarios, drawn without replacement in epochs, and those left of the epoch.

    An epoch of `count` scenarios is cut into batches of at most `size` that differ by one at most.
    """
    if not len(left):
        left = torch.randperm(count, generator=generator)
    taken = math.ceil(len(left) / math.ceil(len(left) / size))
    return left[:taken].clone(), left[taken:].clone()
