"""Running estimates with two control variates, from fresh scenarios at every step of which nothing is kept.

    d_k = g(v_k; B_k) + (1 - a_k) (d_k-1 - g(v_k-1; B_k)),   g(v; B) = mean_B (h_s(v) - h_0(v)),   h = h_0(v_k) + d_k

This is the recursive momentum STORM (Cutkosky and Orabona 2019, NeurIPS 32) for the differences of the scenarios from
the nominal one, whose hypergradient h_0 is known, so that the part of a change of h that all scenarios have in common
has no error. With a_k = 1 / k, d_k is a mean over all scenarios drawn after the first step, carried to v_k. Its error
is a martingale,

    e_k = (1 - a_k) e_k-1 + mean_B x_s - E x,   x_s = g(v_k; s) - (1 - a_k) g(v_k-1; s),

so that its variance follows by recursion. Values are estimated in the same way, from the same solves.

A risk measure of the form min_t E psi(f, t), as CVaR is (Rockafellar and Uryasev 2000), has its level t as a further
variable. It moves by a Newton step in the estimates of the derivatives by t after every evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...linalg.riesz import RieszMap
from ..nhgd import NHGDState
from ..oracle import Accuracy
from ..outer.reduced_objective import Evaluation, failed_evaluation
from .footprint import Footprint
from .gradient_spread import alternating, deviation_of
from .minibatches import Minibatches, beside_nominal
from .nominal_point import solve_nominal
from .part_solution import PartSolution, solve_part
from .scenario_bilevel import Risk, ScenarioBilevelProblem
from .team import ALONE, Team, Work, numbers_of


class Integrand(Protocol):
    """psi(f_s, t), psi without smoothing, the first derivatives by f and t, and the second one by t: all (b,)."""

    @property
    def value(self) -> Tensor: ...
    @property
    def exact(self) -> Tensor: ...
    @property
    def by_value(self) -> Tensor: ...
    @property
    def by_level(self) -> Tensor: ...
    @property
    def curvature(self) -> Tensor: ...


@runtime_checkable
class LevelRisk(Protocol):
    """A risk measure min_t E psi(f, t)."""

    def integrand(self, values: Tensor, t: float) -> Integrand: ...

    def level(self, values: Tensor, weights: Tensor) -> float | None:
        """The minimising t."""
        ...


# Places of the numbers behind the hypergradient in the running estimates, counted from the end.
_VALUE, _SLOPE, _CURVATURE, _SQUARE, _GAP = range(-5, 0)
# Lower bound of the second derivative in the level, in units of 1/spread.
_FLATTEST = 1.5
# Largest step of the level, in units of the spread of the values. Running estimates are not valid further away.
_FARTHEST = 0.25


@dataclass(frozen=True)
class Before:
    """The last evaluation: its control (p,), the nominal scenario there, and the level it was made with."""

    v: Tensor
    u: Tensor
    p: Tensor
    value: float
    derivative: Tensor
    level: float


@dataclass(frozen=True)
class StreamState:
    """Data that are carried from one evaluation to the next; none of them belongs to a single scenario.

    Attributes:
        nominal: the state of the nominal scenario.
        drawn: number of scenarios so far.
        taken: number of evaluations so far.
        running: (p + 5,) estimates: of hypergradient and value, both minus those of the nominal scenario, of the first
            and second derivative by the level, of the mean square of the differences between values and the nominal
            one, and of the measure without smoothing minus the smoothed one.
        variance, value_variance: variances of the errors of the first two estimates.
        level: t of the next evaluation; 0 where there is none.
        before: None before the first evaluation.
    """

    nominal: NHGDState
    drawn: int
    taken: int
    running: Tensor
    variance: float = 0.0
    value_variance: float = 0.0
    level: float = 0.0
    before: Before | None = None
    q: ClassVar[Tensor | None] = None

    @property
    def u(self) -> Tensor:
        """(1, n) of the nominal scenario."""
        return self.nominal.u

    @property
    def description(self) -> str:
        return f"{self.nominal.description}, shared by a stream of scenarios"

    @property
    def sampling_error(self) -> float:
        """Standard error of the gradient of the last evaluation; infinite before the first."""
        return math.sqrt(self.variance) if self.taken else math.inf

    def blend(self, other: StreamState, share: float) -> StreamState:
        return replace(other, nominal=self.nominal.blend(other.nominal, share))


@dataclass(frozen=True)
class Streaming(Minibatches[StreamState]):
    """Options; an `Oracle`.

    Attributes:
        batch: number of fresh scenarios per evaluation.
        power: a_k = k^-power with a_0 = 1, so that the estimate at the starting point is forgotten; 0 is plain
            sampling, with no memory.
        least: a_k is never less.
        share: allowed error of state and adjoint equations, as a share of the sampling error.
        roughest: largest relative error of a state or an adjoint.
        team: processes that share every batch, of which each has at least one scenario.
    """

    batch: int = 8
    power: float = 1.0
    least: float = 0.0
    share: float = 0.2
    roughest: float = 0.1
    name: str = "streaming"
    team: Team = ALONE

    @property
    def fresh(self) -> bool:
        """The scenarios are not those of the sample."""
        return True

    def scenario_bytes(self, footprint: Footprint) -> float:
        return footprint.working(self.batch)

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise ValueError(f"batch: expected at least 2 scenarios, which tell of their variance, found {self.batch}")

    def init(self, problem: ScenarioBilevelProblem, u: Tensor, v: Tensor) -> StreamState:
        """Raises: ValueError: the risk is not an expectation, nor the minimum of one over a level."""
        if not (problem.risk.linear or isinstance(problem.risk, LevelRisk)):
            raise ValueError(
                "a stream of scenarios estimates expectations: expected mean or cvar as risk measure, found another, "
                "which takes a finite sample"
            )
        nominal = self.base.init(problem.nominal, problem.nominal.start()[0], v)
        return StreamState(nominal, 0, 0, v.new_zeros(len(v) - _VALUE))

    def _evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: StreamState, accuracy: Accuracy
    ) -> tuple[Evaluation, StreamState]:
        nominal_point, own, _ = solve_nominal(self.base, problem, v, state.nominal, accuracy)
        if nominal_point is None:
            return own, state
        weight = max(max(state.taken, 1) ** -self.power, self.least)
        before = state.before
        # Errors of equations add up over the 1 / a_k evaluations that an estimate lasts.
        hidden = self.share * weight, state.sampling_error
        tolerances = nominal_point.tolerances(problem, accuracy, hidden, self.roughest)
        team, work = self.team, Work(problem.counts)
        first, count = team.portion(self.batch)
        with team.together():
            part = problem.drawn(state.drawn + first, count)
            u, p = (each.expand(count, -1).clone() for each in (nominal_point.u, nominal_point.p))
            found = solve_part(part, v, u, p, nominal_point.inverse, tolerances)
        message = team.first_message(found.message)
        if message:
            return failed_evaluation(v, message), state
        level = self._level(problem.risk, state, found.values, nominal_point.value)
        terms = _terms(problem.risk, found, nominal_point.value, nominal_point.derivative, level)
        past = torch.zeros_like(terms)
        if before is not None and weight < 1.0:
            with team.together():
                old = found
                if not torch.equal(before.v, v):
                    # The same scenarios at the last control, from states moved with the nominal one.
                    u, p = found.u + (before.u - nominal_point.u), found.p + (before.p - nominal_point.p)
                    old = solve_part(part, before.v, u, p, nominal_point.inverse, tolerances)
            message = team.first_message(old.message)
            if message:
                return failed_evaluation(v, message), state
            past = _terms(problem.risk, old, before.value, before.derivative, before.level)
        numbers = found.state_error, found.adjoint_error, found.state_steps, found.adjoint_steps
        parts = [terms.sum(0), past.sum(0), numbers_of(team, numbers, v), work.here(v)]
        total, total_past, table, done = team.summed(parts, v)
        work.by_all(done)
        state_error, adjoint_error, state_steps, adjoint_steps = table.max(0).values.tolist()
        mean, mean_past = total / self.batch, total_past / self.batch
        running = mean + (1.0 - weight) * (state.running - mean_past) if before is not None and weight < 1.0 else mean
        rest = terms - mean - (1.0 - weight) * (past - mean_past)
        spread, value_spread = self._spread(problem.outer_metric, rest, first)
        kept = (1.0 - weight) ** 2
        variance = kept * state.variance + spread**2 / self.batch
        value_variance = kept * state.value_variance + value_spread / self.batch
        of_all = replace(
            found,
            state_error=state_error,
            adjoint_error=adjoint_error,
            state_steps=int(state_steps),
            adjoint_steps=int(adjoint_steps),
        )
        more, error = (running[:_VALUE], float(running[_VALUE])), math.sqrt(variance)
        evaluation = beside_nominal(problem, v, nominal_point, of_all, more, error, self.batch)
        evaluation = replace(evaluation, smoothing_gap=float(running[_GAP]))
        if not evaluation.finite:
            return evaluation, state
        return evaluation, StreamState(
            nominal=nominal_point.state,
            drawn=state.drawn + self.batch,
            taken=state.taken + 1,
            running=running,
            variance=variance,
            value_variance=value_variance,
            level=_after(problem.risk, level, running),
            before=Before(v, nominal_point.u, nominal_point.p, nominal_point.value, nominal_point.derivative, level),
        )

    def _level(self, risk: Risk, state: StreamState, values: Tensor, nominal: float) -> float:
        """The level t of this evaluation. Only the first one takes the values of all ranks."""
        if state.before is None and isinstance(risk, LevelRisk):
            first, own = self.team.portion(self.batch)
            values = self.team.joined(values, torch.arange(first, first + own), self.batch)
        return _level(risk, state, values, nominal)

    def _spread(self, metric: RieszMap, rest: Tensor, first: int) -> tuple[float, float]:
        """Standard deviation of hypergradients and variance of values over all scenarios.

        rest (k, p + 5) has the differences of the scenarios of this rank, `first` and more, from the mean of all.
        """
        rows = rest[:, :_VALUE]
        squares = rest.new_tensor([metric.dual_norm_estimate(rows) ** 2, float(rest[:, _VALUE].square().sum())])
        typical, squares = self.team.summed([alternating(rows, first), squares])
        length, of_values = squares.tolist()
        return deviation_of(metric, math.sqrt(length), typical, self.batch), of_values / (self.batch - 1)

    def whole(self, state: StreamState) -> StreamState:
        """The state of all ranks, which is that of each: nothing in it belongs to a scenario."""
        return state

    def bare(self, state: StreamState) -> StreamState:
        return state


def _terms(risk: Risk, found: PartSolution, value: float, derivative: Tensor, level: float) -> Tensor:
    """(b, p + 5) terms whose means over scenarios are estimated; value and derivative (p,) are those of the nominal
    scenario."""
    values, rows = found.values, found.rows
    if risk.linear or not isinstance(risk, LevelRisk):
        numbers = torch.nn.functional.pad((values - value)[:, None], (0, -_VALUE - 1))
        return torch.cat([rows - derivative, numbers], 1)
    psi = risk.integrand(values, level)
    square, gap = (values - value).square(), psi.exact - psi.value
    numbers = torch.stack([psi.value - value, psi.by_level, psi.curvature, square, gap], 1)
    return torch.cat([psi.by_value[:, None] * rows - derivative, numbers], 1)


def _level(risk: Risk, state: StreamState, values: Tensor, nominal: float) -> float:
    """The level t of this evaluation: moved by as much as the nominal value has changed; at first, the best for the
    values."""
    if risk.linear or not isinstance(risk, LevelRisk):
        return 0.0
    if state.before is None:
        found = risk.level(values, torch.full_like(values, 1.0 / len(values)))
        return 0.0 if found is None else found
    return state.level + nominal - state.before.value


def _after(risk: Risk, level: float, running: Tensor) -> float:
    """The level after a Newton step.

    The second derivative is a density. It is not known well where few scenarios are within the width of the smoothing.
    It is therefore taken to be at least the density of values that are spread evenly.
    """
    if risk.linear:
        return 0.0
    slope, curvature, square = (float(running[k]) for k in (_SLOPE, _CURVATURE, _SQUARE))
    if not square > 0.0:
        return level
    spread = math.sqrt(square)
    step = slope / max(curvature, _FLATTEST / spread)
    return level - min(max(step, -_FARTHEST * spread), _FARTHEST * spread)
