"""Natural hypergradients over scenarios: one inverse for all of them, and only as many scenarios as needed.

    q_s = A_0 grad_u f_s   refined by conjugate gradients on the scenario's own Fisher information
    h   = grad f_0 + sum_s r_s (grad_v f_s - (d2_vu g_s)^T q_s),   r = d rho / d f

A_0 is the inverse of the nominal scenario. This is K-FAC's split of the Fisher information of all scenarios: the
identity across scenarios times one spatial factor.

The first scenarios stand for all until the gradient falls below the error of their mean (`growth.py`), with control
variates on a coarser mesh (`mesh_levels.py`). The scenarios of a batch are among those of the next one, so that values
are compared over the same scenarios.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...linalg.factorisation import SingularMatrixError
from ..nhgd import NHGD, NHGDState
from ..oracle import Accuracy
from ..outer.base import HessianProduct
from ..outer.reduced_objective import Evaluation, failed_evaluation
from ..plain import from_plain, to_plain
from ..scales import UNKNOWN, GradientScales
from ..search import outer_space
from .footprint import Footprint
from .growth import GrowthOptions
from .known_solutions import KnownSolutions
from .mesh_levels import TwoMeshEstimate, shift_between, two_mesh_estimate
from .nominal_point import solve_nominal
from .part_equations import row_lengths
from .sampling_errors import SamplingErrors, sampling_errors
from .scenario_bilevel import MeshTransfer, Part, ScenarioBilevelProblem
from .scenario_state import MeshLevel, MeshLevelState, ScenarioState
from .team import ALONE, Team, numbers_of

# Number of times that the equations of the same scenarios are solved again at one point, and the smallest factor by
# which their errors are meant to become smaller each time.
_MOST_TIGHTENINGS = 3
_LEAST_TIGHTENING = 0.1
# Relative error of the states from which the rounding errors of the gradient are estimated.
_FLOOR = 1e-12
# A gradient below this share of its natural size may be zero; one more scenario then shows how large its errors are.
_SUSPICIOUS = 1e-3


@dataclass(frozen=True)
class ScenarioNHGD:
    """The method's options; an `Oracle`.

    Attributes:
        base: the method for the nominal scenario, whose curvature is pointwise.
        growth: how batches of scenarios grow.
        team: processes that share the scenarios.
    """

    base: NHGD
    growth: GrowthOptions = field(default_factory=GrowthOptions)
    name: str = "nhgd"
    team: Team = ALONE

    def scenario_bytes(self, footprint: Footprint) -> float:
        return footprint.rows + 8.0 * footprint.count**2 + footprint.working()

    def init(self, problem: ScenarioBilevelProblem, u: Tensor, v: Tensor) -> ScenarioState:
        count, growth = problem.inner_shape[0], self.growth
        nominal = self.base.init(problem.nominal, problem.nominal.start()[0], v)
        active = count if growth.first is None else 0 if growth.nominal < 1.0 else min(growth.first, count)
        error = 0.0 if active == count else math.inf
        return ScenarioState(MeshLevelState(nominal, KnownSolutions(u[:0], u[:0]), active, error))

    def evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: ScenarioState, accuracy: Accuracy
    ) -> tuple[Evaluation, ScenarioState]:
        """One evaluation over the scenarios in use; a singular linearisation makes it a failed one."""
        try:
            return self._evaluate(problem, v, state, accuracy)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state

    def _evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: ScenarioState, accuracy: Accuracy
    ) -> tuple[Evaluation, ScenarioState]:
        if state.at is not None and not torch.equal(state.at, v):
            # A step was made, and all active scenarios have been used for it.
            state = state.each(lambda level: replace(level, used=level.active))
        nominal_point, evaluation, nominal = solve_nominal(self.base, problem, v, state.nominal, accuracy)
        if nominal_point is None or (state.active == 0 and state.coarse is None):
            return replace(evaluation, validated=False), replace(state, fine=replace(state.fine, nominal=nominal))
        fine, coarse = MeshLevel(problem, v, nominal_point, state.fine.at(nominal_point)), None
        transfer = problem.coarse if state.coarse is not None else None
        before = 0 if transfer is None else transfer.problem.counts.solves
        if transfer is not None and (level := state.coarse) is not None:
            coarse = self._below(transfer, v, level, state.shift, accuracy)
            if coarse is not None and state.shift is None:
                state = replace(state, shift=shift_between(fine, coarse, transfer))
                coarse = self._below(transfer, v, level, state.shift, accuracy)
            if coarse is None:
                return self._evaluate(problem, v, replace(state, coarse=None, tried=True), accuracy)
        result = self._estimated(fine, coarse, self._tolerances(state, accuracy))
        if isinstance(result, str):
            return failed_evaluation(v, result), state
        if transfer is not None:
            problem.counts.coarse_solves += transfer.problem.counts.solves - before
        return self._evaluation(problem, v, evaluation, *result, state)

    def _below(
        self, transfer: MeshTransfer, v: Tensor, level: MeshLevelState, shift: Tensor | None, accuracy: Accuracy
    ) -> MeshLevel | None:
        """The level on the coarser mesh, for a control (p,) of the problem; None where its nominal scenario fails."""
        transfer = transfer if shift is None else transfer.shifted(shift)
        below = transfer.restrict(v)
        found, _, _ = solve_nominal(self.base, transfer.problem, below, level.nominal, accuracy)
        return None if found is None else MeshLevel(transfer.problem, below, found, level.at(found), transfer)

    def _estimated(
        self, fine: MeshLevel, coarse: MeshLevel | None, accuracy: tuple[float, float]
    ) -> tuple[TwoMeshEstimate, SamplingErrors] | str:
        """The estimate and its sampling errors, or a sentence where a system could not be solved.

        The equations are solved again, to smaller errors, as long as the gradient has to be corrected for their
        residuals by more than its sampling error hides.
        """
        problem, v = fine.problem, fine.v
        own = problem.nominal.control_derivative(v)
        tightenings = 0
        while True:
            estimate = two_mesh_estimate(fine, coarse, accuracy, self.team)
            if isinstance(estimate, str):
                return estimate
            fine, coarse = estimate.fine.level, None if estimate.coarse is None else estimate.coarse.level
            errors = sampling_errors(estimate)
            length = self._length(problem, v, estimate.derivative + own)
            hidden = max(self.growth.share * errors.total, self.growth.visible * length)
            if tightenings == _MOST_TIGHTENINGS or not (estimate.corrected > 2.0 * hidden):
                return estimate, errors
            # New scenarios all start from the nominal state, so their errors are correlated; tighten.
            tightenings += 1
            tighter = max(hidden / estimate.corrected, _LEAST_TIGHTENING)
            accuracy = tighter * accuracy[0], tighter * accuracy[1]

    def _evaluation(
        self,
        problem: ScenarioBilevelProblem,
        v: Tensor,
        nominal: Evaluation,
        estimate: TwoMeshEstimate,
        errors: SamplingErrors,
        state: ScenarioState,
    ) -> tuple[Evaluation, ScenarioState]:
        fine, coarse = estimate.fine.level.state, None if estimate.coarse is None else estimate.coarse.level.state
        derivative = estimate.derivative + problem.nominal.control_derivative(v)
        left = estimate.state_error + estimate.adjoint_error
        # With a nonlinear measure, the weights of scenarios depend on the values of those left out.
        validated = errors.total == 0.0 or (problem.risk.linear and math.isfinite(errors.bound))
        parts = self._parts(problem, estimate, derivative)
        scale, total = errors.scale(state.scale), errors.total
        evaluation = Evaluation(
            v=v,
            value=estimate.value + problem.nominal.control_value(v),
            derivative=derivative,
            gradient=problem.outer_metric.gradient(derivative[None])[0],
            state_error=max(estimate.state_error, nominal.state_error),
            adjoint_error=max(estimate.adjoint_error, nominal.adjoint_error),
            sensitivity=estimate.corrected / left if left > 0.0 else nominal.sensitivity,
            inner_steps=max(each.state_steps for each in estimate.sums),
            refinement_steps=max(each.adjoint_steps for each in estimate.sums),
            sampling_error=total,
            sampling_bound=2.0 * scale * total,
            scenarios=fine.active,
            coarse_scenarios=0 if coarse is None else coarse.active,
            smoothing_gap=sum(each.gap for each in estimate.sums),
            validated=validated,
            rounding=parts.rounding,
        )
        if not evaluation.finite:
            return evaluation, state
        reached = ScenarioState(
            replace(fine, sampling_error=errors.fine),
            # The coarser mesh is no help where scenarios differ in another way there.
            None if coarse is None or errors.useless else replace(coarse, sampling_error=errors.coarse),
            evaluation.sensitivity,
            tried=state.tried or coarse is not None,
            at=v,
            doubt=evaluation.gradient_error if validated else math.inf,
            scale=scale,
            parts=parts,
            shift=state.shift,
        )
        return evaluation, reached

    def _parts(self, problem: ScenarioBilevelProblem, estimate: TwoMeshEstimate, derivative: Tensor) -> GradientScales:
        """The scales of a gradient that is the sum of the gradients of the scenarios, which may cancel."""
        metric, few = problem.outer_metric, estimate.fine.measured[0]
        own = metric.dual_norm_estimate((derivative - estimate.derivative)[None])
        size = estimate.fine.hypergradients.size(metric, few.shares)
        return GradientScales.of_parts(own + size, estimate.state_error + estimate.adjoint_error)

    def _length(self, problem: ScenarioBilevelProblem, v: Tensor, derivative: Tensor) -> float:
        """The length of a gradient to which its errors are compared; components that push against a bound do not
        count."""
        space = outer_space(problem)
        if space.smooth:
            return problem.outer_metric.dual_norm_estimate(derivative[None])
        gradient = problem.outer_metric.gradient(derivative[None])[0]
        evaluation = Evaluation(v, math.nan, derivative, gradient, 0.0, 0.0, 0.0)
        return space.scaled(evaluation).stationarity(evaluation)

    def _tolerances(self, state: ScenarioState, accuracy: Accuracy) -> tuple[float, float]:
        """Relative errors of states and adjoints, not smaller than the sampling error makes useful."""
        options, sensitivity = self.growth, state.sensitivity
        hidden = options.share * state.sampling_error / sensitivity if sensitivity > 0.0 else math.inf
        if state.sampling_error == 0.0:
            hidden = 0.0
        state_error, adjoint_error = (
            min(max(wanted, hidden), max(options.roughest, wanted)) for wanted in (accuracy.state, accuracy.adjoint)
        )
        return state_error, adjoint_error

    def grown(
        self, problem: ScenarioBilevelProblem, state: ScenarioState, stationarity: float, first: float, goal: float
    ) -> ScenarioState | None:
        """The state with more scenarios, where the direction of the optimum needs them; None where it does not."""
        count, growth = problem.inner_shape[0], self.growth
        if state.active == 0 and state.coarse is None:
            if stationarity > max(growth.nominal * first, goal):
                return None
            return self._begun(problem, state, count)
        fine, coarse = state.fine, state.coarse
        settled = coarse is not None and coarse.active >= count
        if fine.active >= count or growth.enough(
            fine.active, stationarity, state.sampling_error, goal, doubt=state.doubt, settled=settled
        ):
            return None
        if coarse is None:
            ending = problem.risk.linear and stationarity <= goal
            active = growth.following(fine.active, count, stationarity, fine.sampling_error, ending=ending)
            return replace(state, fine=replace(fine, active=active))
        return self._grown_on(fine, coarse, state, stationarity, count, goal)

    def _grown_on(
        self,
        fine: MeshLevelState,
        coarse: MeshLevelState,
        state: ScenarioState,
        stationarity: float,
        count: int,
        goal: float,
    ) -> ScenarioState:
        """The state with more scenarios on one or both of two meshes.

        The level with the smaller part of the error need not grow yet. Scenarios on the coarser mesh cost so much less
        that their part is made small before the first one on the mesh of the problem.
        """
        growth = self.growth
        large, share = 0.5 * state.sampling_error, math.sqrt(0.5) * stationarity
        cheap = not fine.active and coarse.sampling_error >= 0.5 * large
        if not cheap and (fine.sampling_error >= large or stationarity <= goal):
            fine = replace(fine, active=growth.following(fine.active, count, share, fine.sampling_error))
        if cheap or coarse.sampling_error >= large or stationarity <= goal:
            wider = growth.following(coarse.active, count, share, coarse.sampling_error, growth.coarse_most)
            coarse = replace(coarse, active=wider)
        coarse = replace(coarse, active=max(coarse.active, fine.active))
        return replace(state, fine=fine, coarse=None if fine.active >= count else coarse)

    def _begun(self, problem: ScenarioBilevelProblem, state: ScenarioState, count: int) -> ScenarioState:
        """The state with the first scenarios, on the coarser mesh where there is one."""
        growth, transfer = self.growth, problem.coarse if self.growth.coarse and not state.tried else None
        if transfer is None:
            return replace(state, fine=replace(state.fine, active=min(growth.first or count, count)))
        u, v = transfer.problem.nominal.start()
        nominal = self.base.init(transfer.problem.nominal, u, v)
        coarse = MeshLevelState(nominal, KnownSolutions(u[:0], u[:0]), min(growth.coarse, count))
        return replace(state, coarse=coarse)

    def scales(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: ScenarioState, evaluation: Evaluation
    ) -> GradientScales:
        """The scales of the nominal gradient if the first evaluation used it alone, else of the sum over scenarios.

        If gradients are zero in every scenario, their rounding errors give no size; the nominal gradient then gives the
        floor.
        """
        if not state.active and state.coarse is None:
            return self.base.scales(problem.nominal, v, state.nominal, evaluation)
        found = self._scales_of(problem.nominal, v, state.nominal)
        natural, rounding = found.natural, max(state.parts.rounding, found.rounding)
        if evaluation.norm <= _SUSPICIOUS * natural or natural == 0.0:
            own = self._longest_scales(problem, v, state)
            natural, rounding = max(natural, own.natural), max(rounding, own.rounding)
        return GradientScales(max(state.parts.natural, natural), rounding)

    def _scales_of(self, problem: Part, v: Tensor, state: NHGDState) -> GradientScales:
        evaluation, reached = self.base.evaluate(problem, v, state, Accuracy(_FLOOR, _FLOOR))
        return self.base.scales(problem, v, reached, evaluation) if evaluation.finite else UNKNOWN

    def _longest_scales(self, problem: ScenarioBilevelProblem, v: Tensor, state: ScenarioState) -> GradientScales:
        """The scales of the gradient of the scenario with the longest state; the largest of all ranks."""
        found, rows = UNKNOWN, state.known.u
        if len(rows):
            longest = int(row_lengths(problem.nominal, rows).argmax())
            mine = self.team.own(torch.arange(state.active))[longest : longest + 1]
            part = problem.part(mine)
            found = self._scales_of(part, v, self.base.init(part, rows[longest : longest + 1], v))
        table = self.team.summed([numbers_of(self.team, [found.natural, found.rounding], v)])[0]
        natural, rounding = table.amax(0).tolist()
        return GradientScales(natural, rounding)

    def hessian(self, problem: ScenarioBilevelProblem, v: Tensor, state: ScenarioState) -> HessianProduct:
        """The Hessian of the nominal scenario, at two solves per product, which approximates that of all scenarios."""
        return self.base.hessian(problem.nominal, v, state.nominal)

    def whole(self, state: ScenarioState) -> ScenarioState:
        """The state with the scenarios of all ranks on rank 0, and with no scenarios on other ranks."""

        def collected(level: MeshLevelState) -> MeshLevelState:
            u, p = (self.team.collected(rows) for rows in (level.known.u, level.known.p))
            # The gains of the scenarios of several ranks are not collected; later solves find them again.
            gains = level.known.gains if self.team.size == 1 else None
            return replace(level, known=replace(level.known, u=u, p=p, gains=gains))

        return state.each(collected)

    def bare(self, state: ScenarioState) -> ScenarioState:
        """The state with the nominal scenario alone, which remains where other ranks are lost."""
        return state.each(lambda level: replace(level, known=level.known.of(torch.arange(0))))

    def save(self, state: ScenarioState) -> dict[str, Any]:
        """The state of all ranks as nested mappings, on rank 0."""
        rest = to_plain(self.whole(state).each(lambda level: replace(level, nominal=None)))  # type: ignore[arg-type]
        nominal = [self.base.save(level.nominal) for level in (state.fine, state.coarse) if level is not None]
        return {"state": rest, "nominal": nominal}

    def restore(self, problem: ScenarioBilevelProblem, saved: dict[str, Any]) -> ScenarioState:
        """The state with the scenarios of this rank, from the saved state of all ranks."""
        state = from_plain(saved["state"], problem.start()[0].device)
        transfer = problem.coarse if state.coarse is not None else None
        transfer = transfer if transfer is None or state.shift is None else transfer.shifted(state.shift)
        problems = iter([problem] if transfer is None else [problem, transfer.problem])
        nominal = iter(saved["nominal"])

        def own(level: MeshLevelState) -> MeshLevelState:
            rows = self.team.own(torch.arange(len(level.known.u)))
            own_nominal = self.base.restore(next(problems).nominal, next(nominal))
            return replace(level, nominal=own_nominal, known=level.known.of(rows))

        return state.each(own)
