"""Scenarios on two meshes: what is estimated of a measure of all of them, and how far off that is.

    rho_S  ~  rho^c_m(R v) + (rho_b(v) - rho^c_b(R v)),        b <= m <= S

The first b scenarios are looked at on the mesh of the problem, the first m on a coarser one, where they cost a fraction
of that: control variates of multilevel Monte Carlo (Giles 2008, Oper. Res. 56; for gradients Van Barel and Vandewalle
2019, SIAM/ASA J. Uncertain. Quantif. 7). How scenarios differ is nearly the same on both meshes, so that the sampling
error of the difference is a small part of that of rho_b. Every term is a function of v with its own derivative:
values and derivatives of the sum belong together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.riesz import RieszMap
from ..nhgd import NHGDState
from .extremes import beyond
from .measures import Hypergradients, Measured
from .problem import Coarse, Risk, ScenarioProblem
from .solved import Middle
from .sweep import Knowledge, Sweep, sweep
from .systems import Tolerances
from .team import Team
from .unseen import fresh_enough, unseen
from .weights import Balance, balanced

# Relative errors on the coarse mesh, where digits cost little, to those on the problem's own.
_MORE = 0.2


@dataclass(frozen=True)
class LevelState:
    """Data of one mesh that are carried from one evaluation to the next.

    Attributes:
        nominal: state of the nominal scenario.
        known: states and adjoints of the other scenarios.
        active: number of scenarios that the next evaluation takes.
        sampling_error: standard error of their part of the gradient in the last evaluation; infinite before the first.
        used: number of the first scenarios that have been used to choose the point; the others are fresh at the point.
    """

    nominal: NHGDState
    known: Knowledge
    active: int
    sampling_error: float = math.inf
    used: int = 0

    def blend(self, other: LevelState, share: float) -> LevelState:
        nominal, known = self.nominal.blend(other.nominal, share), self.known.blend(other.known, share)
        return replace(other, nominal=nominal, known=known, used=other.active)


@dataclass(frozen=True)
class Level:
    """A problem at a point, its nominal scenario there and what is known of the others."""

    problem: ScenarioProblem
    v: Tensor
    middle: Middle
    state: LevelState

    @classmethod
    def at(cls, problem: ScenarioProblem, v: Tensor, middle: Middle, state: LevelState) -> Level:
        known = state.known.following(middle.u, middle.p)
        return cls(problem, v, middle, replace(state, nominal=middle.state, known=known))

    def swept(self, balances: Sequence[Balance], risk: Risk, accuracy: tuple[float, float], team: Team) -> Sweep:
        """To relative errors of states and adjoints."""
        norm = self.problem.nominal.inner_metric.norm
        tolerances = Tolerances(*accuracy, norm(self.middle.u), norm(self.middle.p))
        return sweep(self.problem, self.v, self.state.known, self.middle, balances, risk, tolerances, team)

    def following(self, found: Sweep) -> Level:
        """With what a sweep has found."""
        return replace(self, state=replace(self.state, known=found.known))


@dataclass(frozen=True)
class Estimate:
    """What the levels say of all scenarios.

    Attributes:
        fine, coarse: the sweeps.
        value: rho, without f_0.
        derivative: (p,) without that of f_0.
        corrected: norm of the gradient's correction for what is left of the equations, or of what that might be.
        message: a sentence where a system could not be solved; everything else is then worthless.
    """

    fine: Sweep
    coarse: Sweep | None
    value: float
    derivative: Tensor
    corrected: float
    message: str = ""

    @property
    def sweeps(self) -> tuple[Sweep, ...]:
        return (self.fine,) if self.coarse is None else (self.fine, self.coarse)

    @property
    def state_error(self) -> float:
        return max(each.state_error for each in self.sweeps)

    @property
    def adjoint_error(self) -> float:
        return max(each.adjoint_error for each in self.sweeps)


def estimate(
    fine: Level, coarse: Level | None, way: Coarse | None, risk: Risk, accuracy: tuple[float, float], team: Team
) -> Estimate:
    """Sweep over the scenarios of both levels.

    Args:
        fine, coarse: the levels.
        way: between them.
        risk: of the values.
        accuracy: relative errors of states and adjoints.
        team: ranks that share the scenarios.
    """
    problem = fine.problem
    few = balanced(problem.variables, problem.weights, fine.state.active)
    below: Sweep | None = None
    if coarse is not None:
        many = balanced(problem.variables, problem.weights, coarse.state.active)
        better = _MORE * accuracy[0], _MORE * accuracy[1]
        below = coarse.swept((many, few), risk, better, team)
        if not below.message:
            # How scenarios differ from the nominal one is known by now, but for what the coarse mesh does not show.
            assert way is not None
            count = len(team.own(torch.arange(fine.state.active)))
            known = fine.state.known.guided(coarse.state.known, below.known, count, way.prolong)
            fine = replace(fine, state=replace(fine.state, known=known))
    found = fine.swept((few,), risk, accuracy, team)
    message = found.message or ("" if below is None else below.message)
    if message:
        return Estimate(found, below, math.nan, found.derivative, math.nan, message)
    value, derivative = found.value, found.derivative
    left = torch.stack([found.correction, found.apart])
    if below is not None:
        assert way is not None
        value += below.value
        added = way.restrict_transposed(torch.stack([below.derivative, below.correction, below.apart]))
        derivative, left = derivative + added[0], left + added[1:]
    corrected = max(problem.outer_metric.dual_norm_estimate(each[None]) for each in left)
    return Estimate(found, below, value, derivative, corrected)


@dataclass(frozen=True)
class SamplingErrors:
    """Estimates of the norm of the gradient's error because scenarios were left out.

    Attributes:
        fine: error of the difference between the meshes, or the whole error where there is one mesh.
        coarse: error of the part that is known from the coarse mesh.
        alone: the error `fine` without the coarse mesh.
        bound: bound of the whole error, from fresh scenarios; infinite where there are too few of them.
    """

    fine: float
    coarse: float = 0.0
    alone: float = math.inf
    bound: float = math.inf

    @property
    def useless(self) -> bool:
        """The coarse mesh does not make the error smaller."""
        return self.fine >= self.alone

    @property
    def total(self) -> float:
        return math.hypot(self.fine, self.coarse)


def sampling_errors(fine: Level, coarse: Level | None, way: Coarse | None, found: Estimate) -> SamplingErrors:
    """The errors of an estimate, by all of its scenarios, and the bound by the fresh ones among them."""
    return replace(_own_errors(fine, coarse, way, found), bound=_bound(fine, coarse, way, found))


def _own_errors(fine: Level, coarse: Level | None, way: Coarse | None, found: Estimate) -> SamplingErrors:
    metric, few = fine.problem.outer_metric, found.fine.measured[0]
    own = _contrasted(found.fine.hypergradients, few)
    smoothness = _smoothness(metric, found.derivative[None])
    if coarse is None or found.coarse is None:
        return SamplingErrors(smoothness * metric.dual_norm_estimate(own))
    assert way is not None
    many, same = found.coarse.measured
    differences = own - way.restrict_transposed(_contrasted(found.coarse.hypergradients, same, many.balance.count))
    below = _contrasted(found.coarse.hypergradients, many)
    below_metric = coarse.problem.outer_metric
    return SamplingErrors(
        smoothness * metric.dual_norm_estimate(differences),
        _smoothness(below_metric, found.coarse.derivative[None]) * below_metric.dual_norm_estimate(below),
        smoothness * metric.dual_norm_estimate(own),
    )


def _contrasted(hypergradients: Hypergradients, measured: Measured, count: int = 0) -> Tensor:
    """(k, p) combinations of hypergradients, of which there may be more than are measured; k = 0: of all scenarios."""
    if measured.balance.factor == 0.0:
        return hypergradients.nominal.new_zeros(0, len(hypergradients.nominal))
    contrasts = measured.contrasts()
    missing = max(count + 1 - len(contrasts), 0)
    return hypergradients.combined(torch.nn.functional.pad(contrasts, (0, 0, 0, missing)))


def _bound(fine: Level, coarse: Level | None, way: Coarse | None, found: Estimate) -> float:
    """Bound of the error of the sum of both levels; the error of each level is estimated by its own fresh scenarios."""
    few, rows = found.fine.measured[0], found.fine.hypergradients
    if few.balance.factor == 0.0:
        return 0.0
    if coarse is None or found.coarse is None:
        if not fresh_enough(few.balance, fine.state.used):
            return math.inf
        return _bound_of_one(fine, few, rows)
    assert way is not None
    many, same = found.coarse.measured
    all_below = many.balance.factor == 0.0
    if not fresh_enough(few.balance, fine.state.used):
        return math.inf
    if not (all_below or fresh_enough(many.balance, coarse.state.used)):
        return math.inf
    below = found.coarse.hypergradients
    squares = rows.squares(fine.problem.outer_metric, below, way)
    without = _offsets(fine, same, below, squares, many.balance.count)
    offsets = _offsets(fine, few, rows, squares) - way.restrict_transposed(without)
    bound = _length(fine.problem.outer_metric, offsets, _beyond(fine, squares))
    return bound if all_below else math.hypot(bound, _bound_of_one(coarse, many, below))


def _bound_of_one(level: Level, measured: Measured, rows: Hypergradients) -> float:
    """Bound of the error of one level, without any other one."""
    metric = level.problem.outer_metric
    squares = rows.squares(metric, None, None)
    return _length(metric, _offsets(level, measured, rows, squares), _beyond(level, squares))


def _beyond(level: Level, squares: Tensor) -> float:
    """What scenarios left out contribute beyond the largest fresh one, from squared distances (b,)."""
    return beyond(level.problem.variables, level.problem.weights, squares.sqrt(), level.state.used)


def _offsets(
    level: Level, measured: Measured, hypergradients: Hypergradients, squares: Tensor, count: int = 0
) -> Tensor:
    """(1 + k, p): the difference from an unbiased estimate, and k rows whose squares add up as in `Unseen.spread`.

    Args:
        level: the level, some of whose scenarios are fresh.
        measured: the risk measure over b scenarios of the level.
        hypergradients: those of these scenarios, and of more scenarios where `count` is larger than b.
        squares: (b,) squared distances of the hypergradients from their mean.
        count: number of scenarios with hypergradients, without the nominal one.
    """
    told = unseen(level.problem.variables, level.problem.weights, measured.balance, level.state.used, squares)
    coefficients = measured.slopes[:, None] * torch.cat([told.offset, told.spread], 1)
    missing = max(count + 1 - len(coefficients), 0)
    return hypergradients.combined(torch.nn.functional.pad(coefficients, (0, 0, 0, missing)))


def _length(metric: RieszMap, offsets: Tensor, tail: float) -> float:
    """The norm of the first row plus the root of the estimated sum of squared norms of the others, and a tail."""
    first = metric.dual_norm(offsets[:1])
    return first + _smoothness(metric, offsets[:1]) * (metric.dual_norm_estimate(offsets[1:]) + tail)


def _smoothness(metric: RieszMap, typical: Tensor) -> float:
    """The norm of the gradient of a typical covector (1, p), relative to that by the diagonal of the Riesz map.

    The latter takes no solves, and is off by a factor that depends on how smooth a covector is.
    """
    rough = metric.dual_norm_estimate(typical)
    return metric.dual_norm(typical) / rough if rough > 0.0 else 1.0
