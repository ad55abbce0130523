"""The nominal scenario at one control: its solutions, and the inverse that all scenarios share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..curvature.base import PointwiseState
from ..nhgd import NHGD, NHGDState
from ..oracle import Accuracy
from ..outer.reduced_objective import Evaluation
from .part_equations import Tolerances
from .scenario_bilevel import ScenarioBilevelProblem


@dataclass(frozen=True)
class NominalPoint:
    """The nominal scenario at one control.

    Attributes:
        state: the state of the method that solved for it.
        u, p: (1, n) state and adjoint.
        value, derivative: f at its state and its hypergradient (p,), both without f_0.
        sensitivity: error of the gradient for relative errors of one in states and adjoints.
        inverse: the inverse that the scenarios share.
    """

    state: NHGDState
    u: Tensor
    p: Tensor
    value: float
    derivative: Tensor
    sensitivity: float
    inverse: PointwiseState

    def tolerances(
        self, problem: ScenarioBilevelProblem, accuracy: Accuracy, hidden: tuple[float, float], roughest: float
    ) -> Tolerances:
        """Tolerances of the accuracy asked for, but not finer than the sampling error makes useful.

        `hidden` is a share of a sampling error and this error, which is infinite while it is not known. Relative errors
        of states and adjoints are at most `roughest`.
        """
        share, error = hidden
        allowed = share * error / self.sensitivity if share > 0.0 and self.sensitivity > 0.0 else 0.0
        state, adjoint = (
            min(max(wanted, allowed), max(roughest, wanted)) for wanted in (accuracy.state, accuracy.adjoint)
        )
        norm = problem.nominal.inner_metric.norm
        return Tolerances(state, adjoint, norm(self.u), norm(self.p))


def solve_nominal(
    base: NHGD, problem: ScenarioBilevelProblem, v: Tensor, state: NHGDState, accuracy: Accuracy
) -> tuple[NominalPoint | None, Evaluation, NHGDState]:
    """The nominal scenario at v, its evaluation, and the state of `base`; no point where the evaluation failed."""
    nominal = problem.nominal
    evaluation, reached = base.evaluate(nominal, v, state, accuracy)
    if not evaluation.finite:
        return None, evaluation, reached
    p = reached.p
    if p is None:
        assert reached.q is not None
        p = nominal.adjoint_state(reached.u, v, reached.q)
    inverse: Any = reached.inner.curvature
    nominal_point = NominalPoint(
        state=reached,
        u=reached.u,
        p=p,
        value=evaluation.value - nominal.control_value(v),
        derivative=evaluation.derivative - nominal.control_derivative(v),
        sensitivity=evaluation.sensitivity,
        inverse=inverse,
    )
    return nominal_point, evaluation, reached
