"""One pass over some scenarios: their states, values and adjoints, and the sum of their hypergradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .known_solutions import KnownSolutions
from .part_equations import RowSolutions, SharedInverse, Tolerances, relative
from .part_solution import solve_part_adjoints, solve_part_states
from .scenario_bilevel import Risk
from .scenario_hypergradients import Hypergradients
from .scenario_state import MeshLevel
from .team import Team, Work, numbers_of
from .weighted_risk import WeightedRisk, difference, padded, weighted_risk
from .weights import Balance

# Scenarios with a smaller share than this, relative to the largest one, change no digit of the hypergradient.
_NO_SHARE = 1e-16
# The length of the nominal state is a unit for the states of scenarios that are at most 1 / _SHORTEST times as long.
_SHORTEST = 1e-3


@dataclass(frozen=True)
class ScenarioSum:
    """The result of one pass over b scenarios.

    Attributes:
        measured: the risk measure over each of the balances asked for.
        derivative: (p,) derivative of the first measure minus those of the others, without the derivative of f_0.
        correction: (p,) the part of the derivative that corrects for the residuals of the equations. The error after
            the correction is smaller than the correction.
        apart: (p,) a correction like this with the residuals of scenarios far from the nominal one enlarged; zero where
            there are none.
        state_error, adjoint_error: relative errors, root mean square over the scenarios.
        state_steps, adjoint_steps: largest number of applications of the inverse to a row.
        level: the level with the solutions found.
        hypergradients: hypergradients of all scenarios.
    """

    measured: tuple[WeightedRisk, ...]
    derivative: Tensor
    correction: Tensor
    apart: Tensor
    state_error: float
    adjoint_error: float
    state_steps: int
    adjoint_steps: int
    level: MeshLevel
    hypergradients: Hypergradients

    @property
    def value(self) -> float:
        """The first measure minus the others."""
        return self.measured[0].value - sum(each.value for each in self.measured[1:])

    @property
    def gap(self) -> float:
        """The measure without smoothing minus the smoothed one, in the same combination."""
        return self.measured[0].gap - sum(each.gap for each in self.measured[1:])


def sum_over_scenarios(
    level: MeshLevel, balances: Sequence[Balance], risk: Risk, accuracy: tuple[float, float], team: Team
) -> ScenarioSum | str:
    """Solve the equations of some scenarios and add up their hypergradients.

    With the mean, the adjoints of a part follow its states, while its matrices are in memory. Any other measure needs
    the values of all scenarios first, and then adjoints of those with a weight alone. Penalties beside another measure
    are those of all scenarios.

    Args:
        level: the scenarios at a point, with states and adjoints to start from.
        balances: weights of the first scenarios. The first balance has the most scenarios; the measures of the others
            are subtracted.
        risk: measure of the values.
        accuracy: relative errors of states and adjoints.
        team: ranks that share the scenarios. All call this function with the same arguments, apart from the starts.

    Returns:
        The sum, or a sentence where a system could not be solved.
    """
    work = _Pass(level, accuracy, balances[0].count, team)
    shares = difference([WeightedRisk(each, 0.0, each.weights) for each in balances])
    if at_once := risk.linear and work.problem.penalty_weights is None:
        work.each_part(work.own, lambda indices: work.adjoints(indices, shares, work.states(indices)))
    else:
        work.each_part(work.own, work.states)
    if work.message:
        return work.message
    measured = work.measured(balances, risk)
    if not at_once:
        shares = difference(measured)
        largest = torch.stack([padded(each.shares.abs(), len(shares)) for each in measured]).amax(0)
        heavy = torch.nonzero(largest[1:] > _NO_SHARE * largest.max()).reshape(-1)
        work.each_part(team.own(heavy), lambda indices: work.adjoints(indices, shares))
    return work.message or work.done(measured, shares)


def _root_mean_square(table: Tensor) -> float:
    """Root of the total of the squares in a table with one row per rank: (largest, sum of squares relative to it)."""
    largest = float(table[:, 0].max())
    if not largest > 0.0:
        return largest
    return largest * math.sqrt(float(((table[:, 0] / largest).square() * table[:, 1]).sum()))


class _Pass:
    """States, adjoints and sums of the scenarios of this rank, as far as the pass has come.

    Shares (b + 1,) of hypergradients have that of the nominal scenario first.
    """

    def __init__(self, level: MeshLevel, accuracy: tuple[float, float], active: int, team: Team) -> None:
        self.level, self.active, self.team = level, active, team
        self.problem, self.v, self.nominal_point = level.problem, level.v, level.nominal_point
        self.known, norm = level.state.known, level.problem.nominal.inner_metric.norm
        self.tolerances = Tolerances(*accuracy, norm(self.nominal_point.u), norm(self.nominal_point.p))
        self.message, self.steps = "", [0, 0]
        self.own = self.team.own(torch.arange(self.active))
        n, count = self.known.u.shape[1], len(self.own)
        self.u, self.p = self.v.new_empty(count, n), self.v.new_empty(count, n)
        self.values, self.penalties = self.v.new_zeros(count), self.v.new_zeros(count)
        self.slopes: Tensor | None = None
        self.rows = self.v.new_zeros(count, len(self.v))
        # Errors and lengths; row 0 for states, row 1 for adjoints.
        self.errors, self.lengths = self.v.new_zeros(2, count), self.v.new_zeros(2, count)
        # Residuals (2, 2, n) of the state and of the adjoint equations: their sum in the shares of the hypergradients,
        # and a sum with alternating signs, so that they do not cancel where the first happen to. In the second sum each
        # residual is multiplied by the factor by which the equation of its scenario enlarges it beyond the nominal one.
        self.left = self.v.new_zeros(2, 2, n)
        self.gains = self.v.new_ones(count)
        # See `KnownSolutions.gains`.
        self.larger: Tensor | None = None
        self.work = Work(self.problem.counts)

    def each_part(self, indices: Tensor, verb: Callable[[Tensor], object]) -> None:
        """Call a method for the parts of some scenarios of this rank, until a system cannot be solved on any rank."""
        with self.team.together():
            for part in torch.split(indices, self.problem.at_once) if len(indices) else ():
                verb(part)
                if self.message:
                    break
        self.message = self.team.first_message(self.message)

    def _solver(self, places: Tensor) -> SharedInverse:
        gains = self.known.gain(0, places), self.known.gain(1, places)
        return SharedInverse(self.nominal_point.inverse, self.tolerances, gains)

    def states(self, indices: Tensor) -> Tensor:
        """Solve for states, and return the residuals (k, n) of their equations."""
        part, places = self.problem.part(indices), self.team.places(indices)
        u, p = self.known.starts(places)
        found = solve_part_states(part, self.v, u, p, self._solver(places))
        states = found.states
        self._took(0, states, places)
        self.u[places], self.p[places] = states.solution, p
        self.values[places] = found.values
        # The adjoint variable is that of the value and the penalty together.
        summed = self.values if self.problem.penalty_weights is None else self.penalties
        summed[places] += found.penalties
        self.gains[places] = self._gains(states.length)
        return states.residual

    def adjoints(self, indices: Tensor, shares: Tensor, residual: Tensor | None = None) -> None:
        """Adjoints and hypergradients of some scenarios whose states, with these residuals (k, n), are known."""
        if self.message:
            return
        part, v, places = self.problem.part(indices), self.v, self.team.places(indices)
        u, own = self.u[places], shares[1:][indices]
        slopes = None if self.slopes is None else self.slopes[indices]
        found, self.rows[places] = solve_part_adjoints(part, v, u, self.p[places], self._solver(places), slopes)
        self._took(1, found, places)
        self.p[places] = found.solution
        self._left(0, own, indices, part.residual(u, v) if residual is None else residual)
        self._left(1, own, indices, found.residual)

    def measured(self, balances: Sequence[Balance], risk: Risk) -> tuple[WeightedRisk, ...]:
        """The risk measure over each balance, from the values of all ranks."""
        count, weights = balances[0].count, self.problem.penalty_weights
        values = torch.cat(
            [self.v.new_tensor([self.nominal_point.value]), self.team.joined(self.values, self.own, count)]
        )
        found = tuple(weighted_risk(risk, values[: each.count + 1], each) for each in balances)
        if weights is None:
            return found
        self.slopes = found[0].slopes_by(weights[:count])
        return (found[0].penalised(self.team.joined(self.penalties, self.own, count), weights[:count]),)

    def _gains(self, lengths: Tensor) -> Tensor:
        """(b,) lengths of states relative to that of the nominal state, at least 1.

        They are 1 where the nominal state is zero or nearly zero, because it is no useful unit then.
        """
        nominal = self.tolerances.state_length
        comparable = lengths * _SHORTEST < nominal
        return torch.where(comparable, lengths / (nominal if nominal > 0.0 else 1.0), 1.0).clamp(min=1.0)

    def _left(self, kind: int, own: Tensor, indices: Tensor, residual: Tensor) -> None:
        signs = (1.0 - 2.0 * (indices % 2)) * self.gains[self.team.places(indices)] ** (2 - kind)
        self.left[kind] += torch.stack([own, signs * own]) @ residual

    def _took(self, kind: int, found: RowSolutions, places: Tensor) -> None:
        self.message = self.message or found.message
        self.errors[kind, places], self.lengths[kind, places] = found.error, found.length
        if found.gain is not None:
            if self.larger is None:
                self.larger = self.v.new_ones(2, len(self.own))
            self.larger[kind, places] = found.gain
        self.steps[kind] = max(self.steps[kind], found.steps)

    def done(self, measured: tuple[WeightedRisk, ...], shares: Tensor) -> ScenarioSum:
        """The result, from the shares (b + 1,) in which the hypergradients enter."""
        hypergradients = Hypergradients(self.nominal_point.derivative, self.rows, self.own, self.team)
        mean, errors, steps = self._summed(hypergradients, shares)
        known = KnownSolutions(self.u, self.p, self.known.at, gains=self.larger)
        correction, apart = self._corrections()
        return ScenarioSum(
            measured=measured,
            derivative=mean + correction,
            correction=correction,
            apart=apart,
            state_error=errors[0],
            adjoint_error=errors[1],
            state_steps=int(steps[0]),
            adjoint_steps=int(steps[1]),
            level=self.level.knowing(known),
            hypergradients=hypergradients,
        )

    def _summed(self, hypergradients: Hypergradients, shares: Tensor) -> tuple[Tensor, list[float], Tensor]:
        """Sums over all ranks: the hypergradient (p,), root mean square errors, and the largest numbers of steps (2,).

        Errors add up as if all of them had one direction. Residuals of the equations and counts of work are summed
        over all ranks, too.
        """
        own = shares[1:].abs()[self.own]
        parts = [
            hypergradients.part(shares[:, None]),
            self.left,
            numbers_of(self.team, [*self.steps, *self._sizes(own)], self.v),
            self.work.here(self.v),
        ]
        mean, self.left, table, total = self.team.summed(parts, self.v)
        self.work.by_all(total)
        lengths = self.tolerances.state_length, self.tolerances.adjoint_length
        errors = [
            relative(_root_mean_square(table[:, k : k + 2]), length, _root_mean_square(table[:, k + 2 : k + 4]))
            for k, length in zip((2, 6), lengths, strict=True)
        ]
        return mean[0], errors, table[:, :2].max(0).values

    def _sizes(self, own: Tensor) -> list[float]:
        """For errors and lengths of states, then of adjoints: the largest, and the sum of squares relative to it.

        The squares of the numbers themselves may underflow or overflow.
        """
        found = []
        for each in (self.errors[0], self.lengths[0], self.errors[1], self.lengths[1]):
            largest = float(each.max()) if len(each) else 0.0
            found += [largest, float(own @ (each / largest).square()) if largest > 0.0 else 0.0]
        return found

    def _corrections(self) -> Tensor:
        """The changes (2, p) of the hypergradient by both sums of residuals, with the derivatives of the nominal
        scenario. The error of u_s is close to A_0 R_s, and that of p_s to A_0^T times the residual of its equation.
        Both are linear, so that three solves correct the sum over all scenarios.
        """
        if not self.active:
            return self.v.new_zeros(2, len(self.v))
        nominal, u, v = self.problem.nominal, self.nominal_point.u, self.v
        du = -self.nominal_point.inverse.newton_step(self.left[0])
        bent = [nominal.outer_second_derivatives(u, v, each[None], torch.zeros_like(v)) for each in du]
        dp = self.nominal_point.inverse.adjoint(self.left[1] + torch.cat([of_state for of_state, _ in bent]))
        products = [nominal.control_product_transposed(u, v, each[None]) for each in dp]
        return torch.stack([direct - product for (_, direct), product in zip(bent, products, strict=True)])
