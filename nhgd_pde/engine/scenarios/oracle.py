"""Natural hypergradients over scenarios: one inverse for all of them, and only as many of them as it takes.

    q_s = A_0 grad_u f_s   refined by conjugate gradients on the scenario's own Fisher information
    h   = grad f_0 + sum_s r_s (grad_v f_s - (d2_vu g_s)^T q_s),   r = d rho / d f

A_0 is the inverse of the nominal scenario, K-FAC's split of the Fisher information of all: the identity across
scenarios times one spatial factor.

The first scenarios stand for all until the gradient falls below the error of their mean (`grown`): progressive
batching (Byrd, Chin, Nocedal and Wu 2012, Math. Program. 134; Bollapragada et al. 2018, ICML). The scenarios of a batch
are among those of the next, so that values are compared over the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ...linalg.factorisation import SingularMatrixError
from ..nhgd import NHGD, NHGDState
from ..oracle import Accuracy
from ..outer.base import Evaluation, HessianProduct, failed_evaluation
from ..plain import from_plain, to_plain
from .problem import ScenarioProblem
from .sweep import Knowledge, Tolerances, sweep

# Sweeps over the same scenarios at one point, and how much better each is meant to be, at most.
_MOST_SWEEPS = 3
_LEAST_TIGHTENING = 0.1
# Standard errors that a gradient may be off by, and what is left of the equations, where no more scenarios are needed.
_SURE = 4.0


@dataclass(frozen=True)
class GrowthOptions:
    """How many scenarios are looked at, and how well.

    Attributes:
        first: those of the first evaluation that takes any; None: all of them always.
        nominal: the gradient of the nominal problem is reduced by this factor before any scenario is looked at, which
            costs next to nothing; 1: it is not.
        ratio: a batch grows once the gradient is below this multiple of its sampling error.
        least, most: factors by which it grows at least and at most.
        share: error of state and adjoint equations that is left, as a share of the sampling error.
        visible: the same as a share of the gradient, where that is larger.
        roughest: largest relative error of a state or an adjoint.
    """

    first: int | None = 16
    nominal: float = 0.05
    ratio: float = 3.0
    least: float = 2.0
    most: float = 4.0
    share: float = 0.5
    visible: float = 0.1
    roughest: float = 0.5

    def start(self, count: int) -> int:
        """Scenarios of the first evaluation; 0 stands for the nominal one alone."""
        if self.first is None:
            return count
        return 0 if self.nominal < 1.0 else min(self.first, count)

    def following(self, active: int, count: int, stationarity: float, sampling_error: float, goal: float) -> int:
        """Scenarios of the next batch; `active` where this one will do: for another step, or for good.

        The error of a mean of b out of S goes with 1/b - 1/S.
        """
        if active >= count or stationarity > max(self.ratio * sampling_error, goal):
            return active
        if sampling_error > 0.0 and stationarity + _SURE * sampling_error <= goal:
            return active
        wanted = (stationarity / (self.ratio * sampling_error)) ** 2 if sampling_error > 0.0 else 1.0
        enough = 1.0 / (wanted * (1.0 / active - 1.0 / count) + 1.0 / count)
        return min(count, max(math.ceil(self.least * active), min(math.ceil(enough), math.ceil(self.most * active))))


@dataclass(frozen=True)
class ScenarioState:
    """What is carried from one evaluation to the next.

    Attributes:
        nominal: of the nominal scenario.
        known: of the scenarios.
        active: scenarios that the next evaluation takes.
        sampling_error: of the gradient of the last evaluation; infinite before there was one.
        sensitivity: of that gradient, to relative errors of states and adjoints.
    """

    nominal: NHGDState
    known: Knowledge
    active: int
    sampling_error: float = math.inf
    sensitivity: float = 0.0

    @property
    def u(self) -> Tensor:
        """(b, n) of the scenarios, (1, n) of the nominal one before any has been looked at."""
        return self.known.u if len(self.known.u) else self.nominal.u

    @property
    def p(self) -> Tensor | None:
        return self.known.p if len(self.known.p) else self.nominal.p

    @property
    def q(self) -> Tensor | None:
        return None

    @property
    def description(self) -> str:
        return f"{self.nominal.description}, shared by the scenarios"

    def blend(self, other: ScenarioState, share: float) -> ScenarioState:
        nominal = self.nominal.blend(other.nominal, share)
        return replace(other, nominal=nominal, known=self.known.blend(other.known, share))


@dataclass(frozen=True)
class ScenarioNHGD:
    """The method's options; an `Oracle`.

    Attributes:
        base: the method for the nominal scenario, whose curvature is pointwise.
        growth: of the batches.
    """

    base: NHGD
    growth: GrowthOptions = field(default_factory=GrowthOptions)
    name: str = "nhgd"

    def init(self, problem: ScenarioProblem, u: Tensor, v: Tensor) -> ScenarioState:
        count = problem.inner_shape[0]
        nominal = self.base.init(problem.nominal, problem.nominal.start()[0], v)
        active = self.growth.start(count)
        return ScenarioState(nominal, Knowledge(u[:0], u[:0]), active, 0.0 if active == count else math.inf)

    def evaluate(
        self, problem: ScenarioProblem, v: Tensor, state: ScenarioState, accuracy: Accuracy
    ) -> tuple[Evaluation, ScenarioState]:
        """One evaluation over the scenarios in use; a singular linearisation makes it a failed one."""
        try:
            return self._evaluate(problem, v, state, accuracy)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state

    def _evaluate(
        self, problem: ScenarioProblem, v: Tensor, state: ScenarioState, accuracy: Accuracy
    ) -> tuple[Evaluation, ScenarioState]:
        middle, nominal = self.base.evaluate(problem.nominal, v, state.nominal, accuracy)
        if not middle.finite or state.active == 0:
            return middle, replace(state, nominal=nominal)
        inverse: Any = nominal.inner.curvature
        p = nominal.p
        if p is None:
            assert nominal.q is not None
            p = problem.nominal.adjoint_state(nominal.u, v, nominal.q)
        tolerances = self._tolerances(problem, state, accuracy, nominal.u, p)
        found = sweep(problem, v, state.known.following(nominal.u, p), state.active, inverse, tolerances)
        own = problem.nominal.control_derivative(v)
        for _ in range(_MOST_SWEEPS):
            derivative = found.derivative + own
            length = problem.outer_metric.dual_norm_estimate(derivative[None])
            hidden = max(self.growth.share * found.sampling_error, self.growth.visible * length)
            if found.message or not found.corrected > 2.0 * hidden:
                break
            # The errors of scenarios that had not been seen have more in common than those of others.
            tolerances = tolerances.tightened(max(hidden / found.corrected, _LEAST_TIGHTENING))
            found = sweep(problem, v, found.known, state.active, inverse, tolerances)
        if found.message:
            return failed_evaluation(v, found.message), state
        derivative = found.derivative + own
        errors = found.state_error + found.adjoint_error
        evaluation = Evaluation(
            v=v,
            value=found.value + problem.nominal.control_value(v),
            derivative=derivative,
            gradient=problem.outer_metric.gradient(derivative[None])[0],
            state_error=found.state_error,
            adjoint_error=found.adjoint_error,
            sensitivity=found.corrected / errors if errors > 0.0 else middle.sensitivity,
            inner_steps=found.state_steps,
            refinement_steps=found.adjoint_steps,
            sampling_error=found.sampling_error,
            scenarios=state.active,
        )
        if not evaluation.finite:
            return evaluation, state
        reached = ScenarioState(nominal, found.known, state.active, found.sampling_error, evaluation.sensitivity)
        return evaluation, reached

    def _tolerances(
        self, problem: ScenarioProblem, state: ScenarioState, accuracy: Accuracy, *nominal: Tensor
    ) -> Tolerances:
        """What the sampling error hides need not be solved for."""
        options, sensitivity = self.growth, state.sensitivity
        hidden = options.share * state.sampling_error / sensitivity if sensitivity > 0.0 else math.inf
        if state.sampling_error == 0.0:
            hidden = 0.0
        state_error, adjoint_error = (
            min(max(wanted, hidden), max(options.roughest, wanted)) for wanted in (accuracy.state, accuracy.adjoint)
        )
        norm = problem.nominal.inner_metric.norm
        lengths = tuple(norm(each) for each in nominal)
        return Tolerances(state_error, adjoint_error, lengths[0], lengths[1])

    def grown(
        self, problem: ScenarioProblem, state: ScenarioState, stationarity: float, first: float, goal: float
    ) -> ScenarioState | None:
        """The state with more scenarios, where those in use do not tell more; None where they do."""
        count = problem.inner_shape[0]
        if state.active == 0:
            enough = stationarity <= max(self.growth.nominal * first, goal)
            return replace(state, active=min(self.growth.first or count, count)) if enough else None
        active = self.growth.following(state.active, count, stationarity, state.sampling_error, goal)
        return None if active == state.active else replace(state, active=active)

    def hessian(self, problem: ScenarioProblem, v: Tensor, state: ScenarioState) -> HessianProduct:
        """Of the nominal scenario, for two solves a product: the curvature of all, up to what differs between them."""
        return self.base.hessian(problem.nominal, v, state.nominal)

    def save(self, state: ScenarioState) -> dict[str, Any]:
        rest = to_plain(replace(state, nominal=None))  # type: ignore[arg-type]
        return {"state": rest, "nominal": self.base.save(state.nominal)}

    def restore(self, problem: ScenarioProblem, saved: dict[str, Any]) -> ScenarioState:
        nominal = self.base.restore(problem.nominal, saved["nominal"])
        state = from_plain(saved["state"], problem.start()[0].device)
        return replace(state, nominal=nominal)
