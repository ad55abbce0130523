"""One sweep over scenarios: states, values, adjoints, and what the hypergradient and its sampling error are made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..curvature.base import PointwiseState
from .problem import ScenarioProblem
from .systems import Rows, solve_adjoints, solve_states
from .team import ALONE, Team, Work, numbers_of
from .weights import Balance, balanced

# Shares of scenarios, relative to the largest, that no digit of the hypergradient shows.
_NONE = 1e-16


@dataclass(frozen=True)
class Knowledge:
    """States and adjoints of the scenarios seen so far: all that is stored of each.

    Attributes:
        u, p: (b, n), b those of this rank.
        at: u and p (1, n) of the nominal scenario when these were solved for; None before.
    """

    u: Tensor
    p: Tensor
    at: tuple[Tensor, Tensor] | None = None

    def following(self, u: Tensor, p: Tensor) -> Knowledge:
        """Moved on by what u and p (1, n) of the nominal scenario have moved.

        The start that is left is off by the step times what the scenario differs from the nominal one, with no solve.
        """
        if self.at is None:
            return Knowledge(self.u, self.p, (u, p))
        return Knowledge(self.u + (u - self.at[0]), self.p + (p - self.at[1]), (u, p))

    def starts(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(k, n) for rows by their places: the nominal ones where a scenario has not been seen."""
        assert self.at is not None
        known = indices < len(self.u)
        if bool(known.all()):
            return self.u[indices], self.p[indices]
        found = []
        for rows, nominal in ((self.u, self.at[0]), (self.p, self.at[1])):
            start = nominal.expand(len(indices), -1).clone()
            start[known] = rows[indices[known]]
            found.append(start)
        return found[0], found[1]

    def blend(self, other: Knowledge, share: float) -> Knowledge:
        if len(self.u) != len(other.u) or self.at is None or other.at is None:
            return other
        u, p = torch.lerp(self.u, other.u, share), torch.lerp(self.p, other.p, share)
        at = torch.lerp(self.at[0], other.at[0], share), torch.lerp(self.at[1], other.at[1], share)
        return Knowledge(u, p, at)


@dataclass(frozen=True)
class Tolerances:
    """Relative errors of states and adjoints to reach, and the lengths that they are relative to."""

    state: float
    adjoint: float
    state_length: float
    adjoint_length: float

    def tightened(self, factor: float) -> Tolerances:
        return replace(self, state=factor * self.state, adjoint=factor * self.adjoint)


@dataclass(frozen=True)
class Hypergradients:
    """One of every scenario, (b, p), each on the rank that the scenario belongs to.

    Attributes:
        rows: those of this rank.
        own: (k,) their numbers.
        team: all ranks.
    """

    rows: Tensor
    own: Tensor
    team: Team

    def combined(self, coefficients: Tensor) -> Tensor:
        """(k, p) linear combinations with coefficients (b, k)."""
        return self.team.summed([self.part(coefficients)])[0]

    def part(self, coefficients: Tensor) -> Tensor:
        """What this rank has of them."""
        return coefficients[self.own].T @ self.rows


@dataclass(frozen=True)
class Sweep:
    """What one sweep over b scenarios gives.

    Attributes:
        value: rho of the scenarios' values, which are corrected to first order for what is left of the equations.
        derivative: (p,) the hypergradient without that of f_0.
        sampling_error: estimate of the norm of the gradient's error against all scenarios; 0 with all of them.
        corrected: norm of the gradient's correction for what is left of the equations, which is larger than what is
            left after it.
        state_error, adjoint_error: relative, in mean square over the scenarios.
        state_steps, adjoint_steps: applications of the inverse to a row, at most.
        known: states and adjoints.
        values: (b,).
        hypergradients: of all scenarios.
        message: a sentence where a system could not be solved; everything else is then worthless.
    """

    value: float
    derivative: Tensor
    sampling_error: float
    corrected: float
    state_error: float
    adjoint_error: float
    state_steps: int
    adjoint_steps: int
    known: Knowledge
    values: Tensor
    hypergradients: Hypergradients
    message: str = ""


def sweep(
    problem: ScenarioProblem,
    v: Tensor,
    known: Knowledge,
    active: int,
    inverse: PointwiseState,
    tolerances: Tolerances,
    team: Team = ALONE,
) -> Sweep:
    """Solve the equations of the first `active` scenarios and add up their hypergradients.

    With the mean, states and adjoints of a part follow each other; another measure has to know all values first, and
    then asks for the adjoints that have a weight.

    Args:
        problem: the scenarios.
        v: (p,).
        known: states and adjoints to start from, with the nominal ones at v.
        active: b.
        inverse: shared by the scenarios.
        tolerances: of both equations.
        team: ranks that share the scenarios, all of which are here with the same arguments but for what they know.
    """
    balance = balanced(problem.variables, problem.weights, active)
    state = _Sum(problem, v, known, inverse, tolerances, active, balance, team)
    mean = problem.risk.linear
    with team.together():
        for indices in _parts(state.own, problem.at_once):
            state.states(indices)
            if mean and not state.message:
                state.adjoints(indices, balance.weights)
            if state.message:
                break
    state.message = team.told(state.message)
    if state.message:
        return state.failed()
    risk, shares = problem.risk, balance.weights
    values = team.joined(state.values, state.own, active)
    if not mean:
        shares = risk.derivative(values, balance.weights)
        heavy = torch.nonzero(shares.abs() > _NONE * shares.abs().max()).reshape(-1)
        with team.together():
            for indices in _parts(team.own(heavy), problem.at_once):
                state.adjoints(indices, shares)
                if state.message:
                    break
        state.message = team.told(state.message)
        if state.message:
            return state.failed()
    return state.done(risk.value(values, balance.weights), values, shares)


def _parts(indices: Tensor, size: int) -> Iterator[Tensor]:
    if len(indices):
        yield from torch.split(indices, size)


@dataclass
class _Sum:
    """What this rank has added up so far."""

    problem: ScenarioProblem
    v: Tensor
    known: Knowledge
    inverse: PointwiseState
    tolerances: Tolerances
    active: int
    balance: Balance
    team: Team
    message: str = ""
    steps: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        self.own = self.team.own(torch.arange(self.active))
        n, count = self.known.u.shape[1], len(self.own)
        self.u, self.p = self.v.new_empty(count, n), self.v.new_empty(count, n)
        self.values = self.v.new_zeros(count)
        self.rows = self.v.new_zeros(count, len(self.v))
        self.squares = [self.v.new_zeros(count), self.v.new_zeros(count)]
        # Of the state and the adjoint equations, added up in the shares of the hypergradients.
        self.left = self.v.new_zeros(2, n)
        self.work = Work(self.problem.counts)

    def states(self, indices: Tensor) -> None:
        part, places = self.problem.part(indices), self.team.places(indices)
        u, p = self.known.starts(places)
        found = solve_states(part, self.v, u, self.inverse, self.tolerances.state * self.tolerances.state_length)
        self._took(0, found, places)
        self.u[places], self.p[places] = found.solution, p
        self.values[places] = part.scenario_values(found.solution, self.v) - (p * found.residual).sum(1)
        self.left[0] += self.balance.weights[indices] @ found.residual

    def adjoints(self, indices: Tensor, shares: Tensor) -> None:
        """Adjoints and hypergradients of some scenarios whose states are known."""
        part, v, places = self.problem.part(indices), self.v, self.team.places(indices)
        u = self.u[places]
        right, direct = part.scenario_derivatives(u, v)
        goal = self.tolerances.adjoint * self.tolerances.adjoint_length
        found = solve_adjoints(part, u, v, right, self.p[places], self.inverse, goal)
        self._took(1, found, places)
        self.p[places] = found.solution
        self.rows[places] = direct - part.scenario_control_products(u, v, found.solution)
        self.left[1] += shares[indices] @ found.residual

    def _took(self, kind: int, found: Rows, places: Tensor) -> None:
        self.message = self.message or found.message
        self.squares[kind][places] = found.error.square()
        self.steps[kind] = max(self.steps[kind], found.steps)

    @property
    def hypergradients(self) -> Hypergradients:
        return Hypergradients(self.rows, self.own, self.team)

    def failed(self) -> Sweep:
        """With the message, and nothing that is worth anything."""
        nan, nothing = math.nan, torch.zeros_like(self.v)
        return Sweep(
            value=nan,
            derivative=nothing,
            sampling_error=0.0,
            corrected=nan,
            state_error=nan,
            adjoint_error=nan,
            state_steps=self.steps[0],
            adjoint_steps=self.steps[1],
            known=self.known,
            values=self.values,
            hypergradients=self.hypergradients,
            message=self.message,
        )

    def done(self, value: float, values: Tensor, shares: Tensor) -> Sweep:
        """With rho, the values (b,) and the shares (b,) in which the hypergradients enter."""
        contrasts = self._contrasts(shares)
        combined, squares, steps = self._summed(torch.cat([shares[:, None], contrasts], 1), shares)
        mean, differences = combined[0], combined[1:]
        known = Knowledge(self.u, self.p, self.known.at)
        lengths = self.tolerances.state_length, self.tolerances.adjoint_length
        # As if all errors had one direction.
        errors = [math.sqrt(max(float(square), 0.0)) for square in squares]
        relative = [error / length if length > 0.0 else error for error, length in zip(errors, lengths, strict=True)]
        correction = self._correction()
        return Sweep(
            value=value,
            derivative=mean + correction,
            corrected=self.problem.outer_metric.dual_norm_estimate(correction[None]),
            sampling_error=self._sampling_error(mean[None], differences),
            state_error=relative[0],
            adjoint_error=relative[1],
            state_steps=int(steps[0]),
            adjoint_steps=int(steps[1]),
            known=known,
            values=values,
            hypergradients=self.hypergradients,
        )

    def _summed(self, coefficients: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Over all ranks: combinations of hypergradients, mean square errors (2,), most steps (2,).

        What is left of the equations and the work that was done become those of all, too.
        """
        own = shares.abs()[self.own]
        parts = [
            self.hypergradients.part(coefficients),
            self.left,
            torch.stack([own @ squares for squares in self.squares]),
            numbers_of(self.team, self.steps, self.v),
            self.work.here(self.v),
        ]
        combined, self.left, squares, steps, total = self.team.summed(parts, self.v)
        self.work.by_all(total)
        return combined, squares, steps.max(0).values

    def _correction(self) -> Tensor:
        """What the nominal scenario says that the equations' mean residuals take off the hypergradient, (p,).

        The error of u_s is close to A_0 R_s, and that of p_s to A_0^T of what is left of its equation: linear both, so
        that three solves correct the mean of all scenarios by what would take as many for each of them.
        """
        nominal, (u, v) = self.problem.nominal, (self.known.at[0], self.v)  # type: ignore[index]
        state, adjoint = self.left[:1], self.left[1:]
        du = -self.inverse.newton_step(state)
        bent, direct = nominal.outer_second_derivatives(u, v, du, torch.zeros_like(v))
        dp = self.inverse.adjoint(adjoint + bent)
        return direct - nominal.control_product_transposed(u, v, dp)

    def _contrasts(self, shares: Tensor) -> Tensor:
        """Coefficients (b, k) of the combinations that tell of the sampling error; k = 0 where there is none."""
        if self.balance.factor == 0.0:
            return shares.new_zeros(self.active, 0)
        weights = self.balance.weights
        used = weights > 0.0
        return torch.where(used, shares / torch.where(used, weights, 1.0), 1.0)[:, None] * self.balance.contrasts()

    def _sampling_error(self, mean: Tensor, differences: Tensor) -> float:
        """Of the derivative, in the norm of the gradient, from its combinations (1, p) and (k, p).

        The norm of the diagonal takes no solves, and is off by a factor that depends on how smooth a covector is: that
        of the mean is taken.
        """
        if not len(differences):
            return 0.0
        metric = self.problem.outer_metric
        rough = metric.dual_norm_estimate(mean)
        smoothness = metric.dual_norm(mean) / rough if rough > 0.0 else 1.0
        return smoothness * metric.dual_norm_estimate(differences)
