"""The nominal scenario at one control: its solutions, and the inverse that all scenarios share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..curvature.base import PointwiseState
from ..nhgd import NHGD, NHGDState
from ..oracle import Accuracy
from ..outer.evaluation import Evaluation
from .part_equations import Tolerances
from .scenario_bilevel import ScenarioBilevelProblem


@dataclass(frozen=True)
class NominalPoint:
    """The nominal scenario at one control.

    Attributes:
        state: of the method that solved for it.
        u, p: (1, n).
        value, derivative: of f at its state, without f_0: a number and (p,).
        sensitivity: of the hypergradient to errors of states and adjoints.
        inverse: shared by the scenarios.
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
        """As accurate as asked for, but no more than makes a difference beside the sampling error.

        Args:
            problem: with the norm of the inner space.
            accuracy: asked for.
            hidden: a share of a sampling error, and that error, which may be infinite: not known yet.
            roughest: largest relative error of a state or an adjoint.
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
    """The nominal scenario at v, its own evaluation and the state of `base`; None where the evaluation failed."""
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
