"""Scenarios on two meshes: the estimate of a risk measure of all scenarios from some of them.

    rho_S  ~  rho^c_m(R v) + (rho_b(v) - rho^c_b(R v)),        b <= m <= S

The first b scenarios are used on the mesh of the problem, and the first m on a coarser one, where they cost a fraction
of that. These are the control variates of multilevel Monte Carlo (Giles 2008, Oper. Res. 56; for gradients Van Barel
and Vandewalle 2019, SIAM/ASA J. Uncertain. Quantif. 7). Scenarios differ in nearly the same way on both meshes, so that
the sampling error of the difference is a small part of that of rho_b. Every term is a function of v with its own
derivative: values and derivatives of the sum belong together.

The objective of each scenario on the coarser mesh has a linear term <shift, u_s> in addition, by which the adjoint
equations of the nominal scenario have the same right-hand side on both meshes, at the control with which the coarser
mesh is used first. Without it, discretisation errors of the state that are as large as the misfit would be
taken for a part of it: the target of an optimal state is met up to such errors. This is the correction of full
approximation schemes (Brandt 1977, Math. Comp. 31). It is the same for all scenarios and controls.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .scenario_bilevel import MeshTransfer
from .scenario_state import MeshLevel
from .scenario_sum import ScenarioSum, sum_over_scenarios
from .team import Team
from .weights import balanced

# Relative errors on the coarse mesh, where digits cost little, divided by those on the mesh of the problem.
_MORE = 0.2


@dataclass(frozen=True)
class TwoMeshEstimate:
    """The estimate for all scenarios from both levels.

    Attributes:
        fine, coarse: the sums over scenarios on both meshes.
        value: estimate of rho, without f_0.
        derivative: (p,) its derivative, without that of f_0.
        corrected: norm of the gradient's correction for the residuals of the equations, or of an upper estimate of it.
    """

    fine: ScenarioSum
    coarse: ScenarioSum | None
    value: float
    derivative: Tensor
    corrected: float

    @property
    def sums(self) -> tuple[ScenarioSum, ...]:
        return (self.fine,) if self.coarse is None else (self.fine, self.coarse)

    @property
    def state_error(self) -> float:
        return max(each.state_error for each in self.sums)

    @property
    def adjoint_error(self) -> float:
        return max(each.adjoint_error for each in self.sums)


def shift_between(fine: MeshLevel, coarse: MeshLevel, transfer: MeshTransfer) -> Tensor:
    """The linear term (1, n_c) for the objective on the coarser mesh, from the nominal scenario on both meshes."""
    by_state = [each.problem.nominal.scenario_derivatives(each.nominal_point.u, each.v)[0] for each in (fine, coarse)]
    return transfer.shift(*by_state)


def two_mesh_estimate(
    fine: MeshLevel, coarse: MeshLevel | None, accuracy: tuple[float, float], team: Team
) -> TwoMeshEstimate | str:
    """Sums over the scenarios of both levels, to relative errors of states and adjoints.

    The result is a sentence where a system could not be solved.
    """
    problem = fine.problem
    few = balanced(problem.variables, problem.weights, fine.state.active)
    below: ScenarioSum | str | None = None
    if coarse is not None:
        many = balanced(problem.variables, problem.weights, coarse.state.active)
        better = _MORE * accuracy[0], _MORE * accuracy[1]
        below = sum_over_scenarios(coarse, (many, few), problem.risk, better, team)
        if isinstance(below, ScenarioSum):
            # The coarse mesh has shown by now how scenarios differ from the nominal one; better starts follow from it.
            count, after = len(team.own(torch.arange(fine.state.active))), below.level.state.known
            fine = fine.knowing(fine.state.known.guided(coarse.state.known, after, count, coarse.prolonged))
    found = sum_over_scenarios(fine, (few,), problem.risk, accuracy, team)
    if isinstance(found, str):
        return found
    if isinstance(below, str):
        return below
    value, derivative = found.value, found.derivative
    left = torch.stack([found.correction, found.apart])
    if below is not None:
        value += below.value
        added = below.level.pulled_back(torch.stack([below.derivative, below.correction, below.apart]))
        derivative, left = derivative + added[0], left + added[1:]
    corrected = max(problem.outer_metric.dual_norm_estimate(each[None]) for each in left)
    return TwoMeshEstimate(found, below, value, derivative, corrected)
