"""Some scenarios at one control, solved each for itself, and the nominal one that helps them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...linalg.riesz import RieszMap
from ..curvature.base import PointwiseState
from ..nhgd import NHGD, NHGDState
from ..oracle import Accuracy
from ..outer.base import Evaluation
from .problem import Part, ScenarioProblem
from .systems import Tolerances, solve_adjoints, solve_states


@dataclass(frozen=True)
class Solved:
    """What is known of b scenarios at one control.

    Attributes:
        u, p: (b, n) states and adjoints.
        values: (b,) f_s, to second order in what is left of the state equations.
        rows: (b, p) hypergradients of f_s.
        state_error, adjoint_error: the largest, relative.
        state_steps, adjoint_steps: applications of the inverse to a row, at most.
        message: a sentence where a system could not be solved; everything else is then worthless.
    """

    u: Tensor
    p: Tensor
    values: Tensor
    rows: Tensor
    state_error: float
    adjoint_error: float
    state_steps: int
    adjoint_steps: int
    message: str = ""


def solve_part(part: Part, v: Tensor, u: Tensor, p: Tensor, inverse: PointwiseState, tolerances: Tolerances) -> Solved:
    """States, adjoints and hypergradients of a part, from starts u and p (b, n)."""
    state = solve_states(part, v, u, inverse, tolerances.state, tolerances.state_length)
    right, direct = part.scenario_derivatives(state.solution, v)
    goal = tolerances.adjoint, tolerances.adjoint_length
    adjoint = solve_adjoints(part, state.solution, v, right, p, inverse, goal)
    return Solved(
        u=state.solution,
        p=adjoint.solution,
        values=part.scenario_values(state.solution, v) - (adjoint.solution * state.residual).sum(1),
        rows=direct - part.scenario_control_products(state.solution, v, adjoint.solution),
        state_error=state.relative(tolerances.state_length),
        adjoint_error=adjoint.relative(tolerances.adjoint_length),
        state_steps=state.steps,
        adjoint_steps=adjoint.steps,
        message=state.message or adjoint.message,
    )


@dataclass(frozen=True)
class Middle:
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
        self, problem: ScenarioProblem, accuracy: Accuracy, hidden: tuple[float, float], roughest: float
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


def nominal_at(
    base: NHGD, problem: ScenarioProblem, v: Tensor, state: NHGDState, accuracy: Accuracy
) -> tuple[Middle | None, Evaluation, NHGDState]:
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
    middle = Middle(
        state=reached,
        u=reached.u,
        p=p,
        value=evaluation.value - nominal.control_value(v),
        derivative=evaluation.derivative - nominal.control_derivative(v),
        sensitivity=evaluation.sensitivity,
        inverse=inverse,
    )
    return middle, evaluation, reached


def deviation(metric: RieszMap, rows: Tensor) -> float:
    """Standard deviation of covectors (b, p) in the norm of gradients, for one Riesz map; infinite of less than two."""
    count = rows.shape[0]
    if count < 2:
        return math.inf
    rest = rows - rows.mean(0)
    return deviation_of(metric, metric.dual_norm_estimate(rest), alternating(rest), count)


def alternating(rest: Tensor, first: int = 0) -> Tensor:
    """(p,) the sum of rows (b, p) with alternating signs; `first` is the number of the first one."""
    signs = rest.new_ones(len(rest))
    signs[1 - first % 2 :: 2] = -1.0
    return signs @ rest


def deviation_of(metric: RieszMap, length: float, typical: Tensor, count: int) -> float:
    """Standard deviation of covectors in the norm of gradients, from what they differ by from their mean.

    The norm of the diagonal takes no solve, and is off by a factor that depends on how smooth covectors are: that of
    their differences from the mean, with alternating signs, is taken.

    Args:
        metric: of gradients.
        length: norm of all differences, by the diagonal.
        typical: (p,) their sum with alternating signs.
        count: of the covectors, at least two.
    """
    rough = length / math.sqrt(count - 1)
    if metric.diagonal or not rough > 0.0:
        return rough
    estimate = metric.dual_norm_estimate(typical[None])
    return rough * metric.dual_norm(typical[None]) / estimate if estimate > 0.0 else rough


def next_batch(left: Tensor, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers of the next scenarios, drawn without replacement in epochs, and those left of the epoch.

    An epoch is cut into batches of at most `size` that differ by one at most.

    Args:
        left: of the epoch so far; none at its end.
        count: scenarios of an epoch.
        size: of a batch, at most.
        generator: of the order of an epoch.
    """
    if not len(left):
        left = torch.randperm(count, generator=generator)
    taken = math.ceil(len(left) / math.ceil(len(left) / size))
    return left[:taken].clone(), left[taken:].clone()
