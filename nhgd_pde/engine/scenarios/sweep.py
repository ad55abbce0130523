"""One sweep over scenarios: states, values, adjoints, and what the hypergradient and its sampling error are made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...linalg.riesz import RieszMap
from ..curvature.base import PointwiseState
from .problem import ScenarioProblem
from .systems import Rows, solve_adjoints, solve_states


@dataclass(frozen=True)
class Knowledge:
    """States and adjoints of the scenarios seen so far: all that is stored of each.

    Attributes:
        u, p: (b, n).
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
        """(k, n) for scenarios: the nominal ones where a scenario has not been seen."""
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


@dataclass(frozen=True)
class Sweep:
    """What one sweep over b scenarios gives.

    Attributes:
        value: rho of the scenarios' values, which are corrected to first order for what is left of the equations.
        derivative: (p,) the hypergradient without that of f_0.
        sampling_error: estimate of the norm of the gradient's error against all scenarios; 0 with all of them.
        state_error, adjoint_error: the largest, relative.
        state_steps, adjoint_steps: applications of the inverse to a row, at most.
        known: states and adjoints.
        values: (b,).
        message: a sentence where a system could not be solved; everything else is then worthless.
    """

    value: float
    derivative: Tensor
    sampling_error: float
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
    total = problem.weights[:active].sum()
    weights = problem.weights[:active] / total
    state = _Sum(problem, v, known, inverse, tolerances, active, weights)
    mean = problem.risk.linear
    for indices in _parts(torch.arange(active), problem.at_once):
        state.states(indices)
        if mean and not state.message:
            state.adjoints(indices, weights)
        if state.message:
            break
    risk = problem.risk
    if not mean and not state.message:
        shares = risk.derivative(state.values, weights)
        for indices in _parts(torch.nonzero(shares).reshape(-1), problem.at_once):
            state.adjoints(indices, shares)
            if state.message:
                break
    value = math.nan if state.message else risk.value(state.values, weights)
    share = (1.0 / active - 1.0 / problem.inner_shape[0]) * active
    return state.done(value, share)


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
    weights: Tensor
    message: str = ""
    errors: list[float] = field(default_factory=lambda: [0.0, 0.0])
    steps: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        n = self.known.u.shape[1]
        self.u, self.p = self.v.new_empty(self.active, n), self.v.new_empty(self.active, n)
        self.values = self.v.new_zeros(self.active)
        self.derivative = torch.zeros_like(self.v)
        # Of the terms whose mean the derivative is, in the norm of the diagonal, which takes no solves.
        self.square = 0.0
        self.inverse_diagonal = 1.0 / self.problem.outer_metric.matrix.diagonal()

    def states(self, indices: Tensor) -> None:
        part = self.problem.part(indices)
        u, p = self.known.starts(indices)
        found = solve_states(part, self.v, u, self.inverse, self.tolerances.state * self.tolerances.state_length)
        self._took(0, found, self.tolerances.state_length)
        self.u[indices], self.p[indices] = found.solution, p
        self.values[indices] = part.scenario_values(found.solution, self.v) - (p * found.residual).sum(1)

    def adjoints(self, indices: Tensor, shares: Tensor) -> None:
        """Of some scenarios, whose hypergradients enter with `shares` (b,)."""
        part, v = self.problem.part(indices), self.v
        u = self.u[indices]
        right, direct = part.scenario_derivatives(u, v)
        goal = self.tolerances.adjoint * self.tolerances.adjoint_length
        found = solve_adjoints(part, u, v, right, self.p[indices], self.inverse, goal)
        self._took(1, found, self.tolerances.adjoint_length)
        self.p[indices] = found.solution
        rows = direct - part.scenario_control_products(u, v, found.solution)
        share, weight = shares[indices], self.weights[indices]
        self.derivative += share @ rows
        squares = (rows.square() * self.inverse_diagonal).sum(1)
        self.square += float((share.square() / weight * squares).sum())

    def _took(self, kind: int, found: Rows, length: float) -> None:
        self.message = self.message or found.message
        worst = float(found.error.max())
        self.errors[kind] = max(self.errors[kind], worst / length if length > 0.0 else worst)
        self.steps[kind] = max(self.steps[kind], found.steps)

    def done(self, value: float, unseen: float) -> Sweep:
        """With the share of the variance of one term that the mean has because scenarios are missing."""
        error = self._spread(self.problem.outer_metric) * math.sqrt(max(unseen, 0.0) / max(self.active - 1, 1))
        known = Knowledge(self.u, self.p, self.known.at)
        return Sweep(
            value=value,
            derivative=self.derivative,
            sampling_error=error,
            state_error=self.errors[0],
            adjoint_error=self.errors[1],
            state_steps=self.steps[0],
            adjoint_steps=self.steps[1],
            known=known,
            values=self.values,
            message=self.message,
        )

    def _spread(self, metric: RieszMap) -> float:
        """Standard deviation of the terms, in the norm of the gradient.

        The norm of the diagonal is off by a factor that depends on how smooth a covector is: that of the mean is taken.
        """
        mean = self.derivative
        rough = metric.dual_norm_estimate(mean[None])
        variance = max(self.square - rough**2, 0.0)
        return math.sqrt(variance) * (metric.dual_norm(mean[None]) / rough if rough > 0.0 else 1.0)
