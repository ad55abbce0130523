"""Scenarios on two meshes: the estimate of a risk measure of all scenarios from some of them.

    rho_S  ~  rho^c_m(R v) + (rho_b(v) - rho^c_b(R v)),        b <= m <= S

The first b scenarios are used on the mesh of the problem, and the first m on a coarser one, where they cost a fraction
of that. These are the control variates of multilevel Monte Carlo (Giles 2008, Oper. Res. 56; for gradients Van Barel
and Vandewalle 2019, SIAM/ASA J. Uncertain. Quantif. 7). Scenarios differ in nearly the same way on both meshes, so that
the sampling error of the difference is a small part of that of rho_b. Every term is a function of v with its own
derivative: values and derivatives of the sum belong together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..nhgd import NHGDState
from .known_solutions import KnownSolutions
from .nominal_point import NominalPoint
from .part_equations import Tolerances
from .scenario_bilevel import MeshTransfer, Risk, ScenarioBilevelProblem
from .scenario_sum import ScenarioSum, sum_over_scenarios
from .team import Team
from .weights import Balance, balanced

# Relative errors on the coarse mesh, where digits cost little, divided by those on the mesh of the problem.
_MORE = 0.2


@dataclass(frozen=True)
class MeshLevelState:
    """Data of one mesh that are carried from one evaluation to the next.

    Attributes:
        nominal: state of the nominal scenario.
        known: states and adjoints of the other scenarios.
        active: number of scenarios that the next evaluation takes.
        sampling_error: standard error of their part of the gradient in the last evaluation; infinite before the first.
        used: number of the first scenarios that were used to choose the point; the others are fresh at the point.
    """

    nominal: NHGDState
    known: KnownSolutions
    active: int
    sampling_error: float = math.inf
    used: int = 0

    def blend(self, other: MeshLevelState, share: float) -> MeshLevelState:
        nominal, known = self.nominal.blend(other.nominal, share), self.known.blend(other.known, share)
        return replace(other, nominal=nominal, known=known, used=other.active)


@dataclass(frozen=True)
class MeshLevel:
    """A problem on one mesh at a point, its nominal scenario there, and the solutions known of the others."""

    problem: ScenarioBilevelProblem
    v: Tensor
    nominal_point: NominalPoint
    state: MeshLevelState

    @classmethod
    def at(
        cls, problem: ScenarioBilevelProblem, v: Tensor, nominal_point: NominalPoint, state: MeshLevelState
    ) -> MeshLevel:
        known = state.known.following(nominal_point.u, nominal_point.p)
        return cls(problem, v, nominal_point, replace(state, nominal=nominal_point.state, known=known))

    def swept(self, balances: Sequence[Balance], risk: Risk, accuracy: tuple[float, float], team: Team) -> ScenarioSum:
        """The sum over the scenarios of this level, solved to the given relative errors of states and adjoints."""
        norm = self.problem.nominal.inner_metric.norm
        tolerances = Tolerances(*accuracy, norm(self.nominal_point.u), norm(self.nominal_point.p))
        return sum_over_scenarios(
            self.problem, self.v, self.state.known, self.nominal_point, balances, risk, tolerances, team
        )

    def following(self, found: ScenarioSum) -> MeshLevel:
        """The level with the solutions of a sum over its scenarios."""
        return replace(self, state=replace(self.state, known=found.known))


@dataclass(frozen=True)
class TwoMeshEstimate:
    """The estimate for all scenarios from both levels.

    Attributes:
        fine, coarse: the sums over scenarios on both meshes.
        value: estimate of rho, without f_0.
        derivative: (p,) its derivative, without that of f_0.
        corrected: norm of the gradient's correction for the residuals of the equations, or of an upper estimate of it.
        message: a sentence where a system could not be solved; everything else is then worthless.
    """

    fine: ScenarioSum
    coarse: ScenarioSum | None
    value: float
    derivative: Tensor
    corrected: float
    message: str = ""

    @property
    def sums(self) -> tuple[ScenarioSum, ...]:
        return (self.fine,) if self.coarse is None else (self.fine, self.coarse)

    @property
    def state_error(self) -> float:
        return max(each.state_error for each in self.sums)

    @property
    def adjoint_error(self) -> float:
        return max(each.adjoint_error for each in self.sums)


def two_mesh_estimate(
    fine: MeshLevel,
    coarse: MeshLevel | None,
    transfer: MeshTransfer | None,
    risk: Risk,
    accuracy: tuple[float, float],
    team: Team,
) -> TwoMeshEstimate:
    """Sum over the scenarios of both levels.

    Args:
        fine, coarse: the levels.
        transfer: the maps between the meshes.
        risk: measure of the values.
        accuracy: relative errors of states and adjoints.
        team: ranks that share the scenarios.
    """
    problem = fine.problem
    few = balanced(problem.variables, problem.weights, fine.state.active)
    below: ScenarioSum | None = None
    if coarse is not None:
        many = balanced(problem.variables, problem.weights, coarse.state.active)
        better = _MORE * accuracy[0], _MORE * accuracy[1]
        below = coarse.swept((many, few), risk, better, team)
        if not below.message:
            # The coarse mesh has shown by now how scenarios differ from the nominal one; better starts follow from it.
            assert transfer is not None
            count = len(team.own(torch.arange(fine.state.active)))
            known = fine.state.known.guided(coarse.state.known, below.known, count, transfer.prolong)
            fine = replace(fine, state=replace(fine.state, known=known))
    found = fine.swept((few,), risk, accuracy, team)
    message = found.message or ("" if below is None else below.message)
    if message:
        return TwoMeshEstimate(found, below, math.nan, found.derivative, math.nan, message)
    value, derivative = found.value, found.derivative
    left = torch.stack([found.correction, found.apart])
    if below is not None:
        assert transfer is not None
        value += below.value
        added = transfer.restrict_transposed(torch.stack([below.derivative, below.correction, below.apart]))
        derivative, left = derivative + added[0], left + added[1:]
    corrected = max(problem.outer_metric.dual_norm_estimate(each[None]) for each in left)
    return TwoMeshEstimate(found, below, value, derivative, corrected)
