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
from .weights import Balance, balanced

# Shares of scenarios, relative to the largest, that no digit of the hypergradient shows.
_NONE = 1e-16


@dataclass(frozen=True)
class Knowledge:
    """States and adjoints of the scenarios seen so far: all that is stored of each.

    Attributes:
        u, p: (b, n).
        at: u and p (1, n) of the nominal scenario when these were solved for; None before.
        moved: (1, n), to be added to every row of u and p, which copies of all rows would take as much memory for.
    """

    u: Tensor
    p: Tensor
    at: tuple[Tensor, Tensor] | None = None
    moved: tuple[Tensor, Tensor] | None = None

    def following(self, u: Tensor, p: Tensor) -> Knowledge:
        """Moved on by what u and p (1, n) of the nominal scenario have moved.

        The start that is left is off by the step times what the scenario differs from the nominal one, with no solve.
        """
        if self.at is None:
            return Knowledge(self.u, self.p, (u, p))
        return Knowledge(self.u, self.p, (u, p), (u - self.at[0], p - self.at[1]))

    def starts(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(k, n) for scenarios: the nominal ones where a scenario has not been seen."""
        assert self.at is not None
        known = indices < len(self.u)
        found = []
        for k, rows in enumerate((self.u, self.p)):
            start = self.at[k].expand(len(indices), -1).clone()
            start[known] = rows[indices[known]] + (self.moved[k] if self.moved is not None else 0.0)
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
class Sweep:
    """What one sweep over b scenarios gives.

    Attributes:
        value: rho of the scenarios' values, which are corrected to first order for what is left of the equations.
        derivative: (p,) the hypergradient without that of f_0.
        sampling_error: estimate of the norm of the gradient's error against all scenarios; 0 with all of them.
        corrected: norm of the gradient's correction for what is left of the equations, which is larger than what is
            left after it; or of what that might be in scenarios far from the nominal one.
        state_error, adjoint_error: relative, in mean square over the scenarios.
        state_steps, adjoint_steps: applications of the inverse to a row, at most.
        known: states and adjoints.
        values: (b,).
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
    message: str = ""


def sweep(
    problem: ScenarioProblem,
    v: Tensor,
    known: Knowledge,
    active: int,
    inverse: PointwiseState,
    tolerances: Tolerances,
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
    """
    balance = balanced(problem.variables, problem.weights, active)
    state = _Sum(problem, v, known, inverse, tolerances, active, balance)
    mean = problem.risk.linear
    for indices in _parts(torch.arange(active), problem.at_once):
        state.states(indices)
        if mean and not state.message:
            state.adjoints(indices, balance.weights)
        if state.message:
            break
    risk, shares = problem.risk, balance.weights
    if not mean and not state.message:
        shares = risk.derivative(state.values, balance.weights)
        for indices in _parts(torch.nonzero(shares.abs() > _NONE * shares.abs().max()).reshape(-1), problem.at_once):
            state.adjoints(indices, shares)
            if state.message:
                break
    value = math.nan if state.message else risk.value(state.values, balance.weights)
    return state.done(value, shares)


def _parts(indices: Tensor, size: int) -> Iterator[Tensor]:
    yield from torch.split(indices, size)


@dataclass
class _Sum:
    """What has been added up so far."""

    problem: ScenarioProblem
    v: Tensor
    known: Knowledge
    inverse: PointwiseState
    tolerances: Tolerances
    active: int
    balance: Balance
    message: str = ""
    errors: list[float] = field(default_factory=lambda: [0.0, 0.0])
    steps: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        n = self.known.u.shape[1]
        self.u, self.p = self.v.new_empty(self.active, n), self.v.new_empty(self.active, n)
        self.values = self.v.new_zeros(self.active)
        self.rows = self.v.new_zeros(self.active, len(self.v))
        self.squares = [self.v.new_zeros(self.active), self.v.new_zeros(self.active)]
        # Of the state and the adjoint equations, added up in the shares of the hypergradients.
        self.left = self.v.new_zeros(2, n)
        # The same with alternating signs, which do not cancel where the mean's happen to, each as many times as large
        # as solving with a scenario's own equation enlarges it: what it does to a load, so far as states tell.
        self.apart = self.v.new_zeros(2, n)
        self.signs = 1.0 - 2.0 * (torch.arange(self.active, device=self.v.device) % 2)
        self.gains = self.v.new_ones(self.active)

    def states(self, indices: Tensor) -> None:
        part = self.problem.part(indices)
        u, p = self.known.starts(indices)
        found = solve_states(part, self.v, u, self.inverse, self.tolerances.state * self.tolerances.state_length)
        self._took(0, found, indices)
        self.u[indices], self.p[indices] = found.solution, p
        self.values[indices] = part.scenario_values(found.solution, self.v) - (p * found.residual).sum(1)
        self.gains[indices] = self._gains(found.solution)
        self._left(0, self.balance.weights, indices, found)

    def adjoints(self, indices: Tensor, shares: Tensor) -> None:
        """Adjoints and hypergradients of some scenarios whose states are known."""
        part, v = self.problem.part(indices), self.v
        u = self.u[indices]
        right, direct = part.scenario_derivatives(u, v)
        goal = self.tolerances.adjoint * self.tolerances.adjoint_length
        found = solve_adjoints(part, u, v, right, self.p[indices], self.inverse, goal)
        self._took(1, found, indices)
        self.p[indices] = found.solution
        self.rows[indices] = direct - part.scenario_control_products(u, v, found.solution)
        self._left(1, shares, indices, found)

    def _gains(self, u: Tensor) -> Tensor:
        """(b,) lengths of states in terms of the nominal one's, at least 1."""
        assert self.known.at is not None
        metric = self.problem.nominal.inner_metric
        length = metric.norm(self.known.at[0])
        if not length > 0.0:
            return torch.ones_like(u[:, 0])
        return ((u * metric.covector(u)).sum(1).clamp(min=0.0).sqrt() / length).clamp(min=1.0)

    def _left(self, kind: int, shares: Tensor, indices: Tensor, found: Rows) -> None:
        self.left[kind] += shares[indices] @ found.residual
        self.apart[kind] += (self.signs * shares * self.gains ** (2 - kind))[indices] @ found.residual

    def _took(self, kind: int, found: Rows, indices: Tensor) -> None:
        self.message = self.message or found.message
        self.squares[kind][indices] = found.error.square()
        self.steps[kind] = max(self.steps[kind], found.steps)

    def done(self, value: float, shares: Tensor) -> Sweep:
        """With the shares (b,) in which the hypergradients enter."""
        known = Knowledge(self.u, self.p, self.known.at)
        lengths = self.tolerances.state_length, self.tolerances.adjoint_length
        # As if all errors had one direction.
        errors = [math.sqrt(float(shares.abs() @ squares)) for squares in self.squares]
        relative = [error / length if length > 0.0 else error for error, length in zip(errors, lengths, strict=True)]
        correction = apart = torch.zeros_like(self.v)
        if not self.message:
            correction, apart = self._correction(self.left), self._correction(self.apart)
        return Sweep(
            value=value,
            derivative=shares @ self.rows + correction,
            corrected=max(self.problem.outer_metric.dual_norm_estimate(each[None]) for each in (correction, apart)),
            sampling_error=0.0 if self.message else self._sampling_error(shares),
            state_error=relative[0],
            adjoint_error=relative[1],
            state_steps=self.steps[0],
            adjoint_steps=self.steps[1],
            known=known,
            values=self.values,
            message=self.message,
        )

    def _correction(self, left: Tensor) -> Tensor:
        """What the nominal scenario says that the equations' mean residuals (2, n) take off the hypergradient, (p,).

        The error of u_s is close to A_0 R_s, and that of p_s to A_0^T of what is left of its equation: linear both, so
        that three solves correct the mean of all scenarios by what would take as many for each of them.
        """
        nominal, (u, v) = self.problem.nominal, (self.known.at[0], self.v)  # type: ignore[index]
        state, adjoint = left[:1], left[1:]
        du = -self.inverse.newton_step(state)
        bent, direct = nominal.outer_second_derivatives(u, v, du, torch.zeros_like(v))
        dp = self.inverse.adjoint(adjoint + bent)
        return direct - nominal.control_product_transposed(u, v, dp)

    def _sampling_error(self, shares: Tensor) -> float:
        """Of the derivative, in the norm of the gradient.

        The norm of the diagonal takes no solves, and is off by a factor that depends on how smooth a covector is: that
        of the mean is taken.
        """
        if self.balance.factor == 0.0:
            return 0.0
        weights, metric = self.balance.weights, self.problem.outer_metric
        rows = self.rows * metric.matrix.diagonal().rsqrt()
        used = weights > 0.0
        rows = torch.where(used, shares / torch.where(used, weights, 1.0), 1.0)[:, None] * rows
        mean = (shares @ self.rows)[None]
        rough = metric.dual_norm_estimate(mean)
        smoothness = metric.dual_norm(mean) / rough if rough > 0.0 else 1.0
        return smoothness * math.sqrt(max(self.balance.variance(rows @ rows.T), 0.0))
