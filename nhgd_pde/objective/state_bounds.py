"""Bounds of the state at the nodes of its space: their values, their violation, and the term that enforces them.

The problem is to minimise f(u, v) with lower <= u <= upper at the nodes. With an estimate mu of the multipliers, which
is positive at upper and negative at lower bounds, the augmented Lagrangian (Hestenes 1969, Powell 1969; for state
constraints Ito and Kunisch 1990, SIAM J. Control Optim. 28) is

    f(u, v) + sum_i m_i rho/2 (e_i^2 - (mu_i / rho)^2),   e = excess(u + mu / rho),

where e is the signed excess over the bounds and m_i the share of the measure of the region that belongs to node i. At a
minimum the multipliers of the next round are rho e, with which the gradient of the Lagrangian is zero. The residual of
the other necessary conditions is e - mu / rho: the lengths by which nodes exceed their bounds, or by which nodes with a
multiplier stay away from their bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator

# Least size of the state in a tolerance, relative to the largest state of all rounds; a smaller state is not accurate.
_SEEN = 1e-3
# A bound counts as no bound if it is larger than the state and than all bounds that the state exceeds by this factor.
_FAR = 1e3
# A round after which more than this share of the violation is left has changed nothing: the penalty is far too small,
# or no control can change the violation.
_STALLED = 0.8
# Number of rounds in a row that change nothing, after which the bounds count as impossible.
_MOST_STALLED = 6
# If more than the share `_SLOW` of the violation is left after a round, the penalty grows by the factor `_GROWTH`.
_SLOW = 0.3
_GROWTH = 10.0
# Growth of the penalty from the second round in a row that changes nothing.
_FAST_GROWTH = 100.0
# Largest penalty relative to the first one; beyond it only rounding is left.
_LARGEST = 1e20


@dataclass(frozen=True, eq=False)
class Between:
    """The bounds of the state at quadrature points, for reports only.

    Attributes:
        evaluation: the functions of the state at the points.
        component: the component of the evaluation that is the value of the bounded field.
        lower, upper: (levels, P) bounds, infinite where there is no bound and outside the region.
        first: the first level in time that is bounded.
    """

    evaluation: EvaluationOperator
    component: int
    lower: Tensor
    upper: Tensor
    first: int = 0

    def violation(self, state: Tensor) -> float:
        """The largest excess over the bounds at coefficients (S, N) of the state."""
        rows = state.reshape(len(state), -1, self.evaluation.size)[:, self.first :]
        values = self.evaluation.evaluate(rows.reshape(-1, self.evaluation.size))[self.component]
        values = values.reshape(len(state), -1, values.shape[-1])
        return float(torch.maximum(values - self.upper, self.lower - values).clamp(min=0.0).max())


@dataclass(frozen=True, eq=False)
class StateBounds:
    """The bounds lower <= u <= upper at nodes.

    Attributes:
        indices: (k,) the bounded coefficients among all coefficients of the state, in an evolution at every level.
        lower, upper: (k,) bounds, infinite where there is none.
        weights: (k,) the measure of the region, and of time, that belongs to each node.
        given: (k,) whether the file determines a coefficient, so that no control changes it.
        places: (k, dim) coordinates of the nodes, followed by the time in an evolution.
        names: names of the coordinates.
        tolerance: largest violation, relative to the size of bounds and state.
        between: the bounds at quadrature points.
        penalty: last penalty of the path, unless a larger one is needed. None stands for 1e6 times the penalty whose
            curvature is that of the objective.
        stages: number of penalties of the path, each ten times the one before.
        key: key of the bounds in the file.
    """

    indices: Tensor
    lower: Tensor
    upper: Tensor
    weights: Tensor
    given: Tensor
    places: Tensor
    names: tuple[str, ...]
    tolerance: float
    between: Between
    penalty: float | None = None
    stages: int = 6
    key: str = ""

    def values(self, state: Tensor) -> Tensor:
        """The bounded coefficients (S, k) among all coefficients (S, N)."""
        return state[:, self.indices]

    def excess(self, values: Tensor) -> Tensor:
        """(S, k) the signed excess: positive above the upper bound, negative below the lower bound, else zero."""
        return (values - self.upper).clamp(min=0.0) - (self.lower - values).clamp(min=0.0)

    @cached_property
    def _sizes(self) -> Tensor:
        """The absolute values of the finite bounds."""
        return torch.cat([bound[torch.isfinite(bound)].abs() for bound in (self.lower, self.upper)])

    def size(self, values: Tensor) -> float:
        """The largest of the values (S, k) of the state and of the bounds, without bounds that are far larger.

        Bounds are compared with the state and the bounds that it exceeds; if these are zero, with the least bound that
        is not zero.
        """
        met = torch.where(self.excess(values) != 0.0, torch.where(values > self.upper, self.upper, self.lower), 0.0)
        largest = max(float(values.abs().max()), float(met.abs().max()))
        least = largest if largest > 0.0 else float(self._sizes[self._sizes > 0.0].min()) if self._sizes.any() else 0.0
        near = self._sizes[self._sizes <= _FAR * least]
        return max(largest, float(near.max()) if len(near) else 0.0)

    def exceeded(self, values: Tensor) -> str:
        """The node of values (S, k) with the largest excess: its place and its bound, in words."""
        excess = self.excess(values)
        scenario, node = divmod(int(excess.abs().argmax()), excess.shape[1])
        side = "upper" if float(excess[scenario, node]) > 0.0 else "lower"
        bound = float((self.upper if side == "upper" else self.lower)[node])
        among = f" in scenario {scenario}" if len(values) > 1 else ""
        return f"at {self.place(node)}{among} the {side} bound {bound:.6g} of {self.key}"

    def place(self, index: int) -> str:
        coordinates = self.places[index].tolist()
        return ", ".join(f"{name} = {value:.6g}" for name, value in zip(self.names, coordinates, strict=True))


@dataclass(frozen=True, eq=False)
class BoundTerm:
    """The term that enforces bounds in the objective; implements `StateTerm`.

    Attributes:
        bounds: the bounds of the state.
        multiplier: (S, k) or (1, k) the multipliers mu, as densities with respect to the weights of the bounds.
        penalty: rho > 0.
    """

    bounds: StateBounds
    multiplier: Tensor
    penalty: float
    quadratic: bool = False

    def value(self, u: Tensor) -> Tensor:
        shift, excess = self.multiplier / self.penalty, self._excess(u)
        # The product of difference and sum avoids cancellation where both are nearly equal.
        square = (excess - shift) * (excess + shift)
        return 0.5 * self.penalty * (square * self._weights).sum(-1)

    def derivative(self, u: Tensor) -> Tensor:
        return self._spread(u, self.penalty * self._weights * self._excess(u))

    def second_derivative(self, u: Tensor, direction: Tensor) -> Tensor:
        active = self._excess(u) != 0.0
        return self._spread(u, self.penalty * self._weights * active * self.bounds.values(direction))

    def _excess(self, u: Tensor) -> Tensor:
        return self.bounds.excess(self.bounds.values(u) + self.multiplier / self.penalty)

    @cached_property
    def _weights(self) -> Tensor:
        """The weights of the bounds, zero where no control changes the state."""
        return torch.where(self.bounds.given, 0.0, self.bounds.weights)

    def _spread(self, u: Tensor, values: Tensor) -> Tensor:
        whole = torch.zeros_like(u)
        whole[:, self.bounds.indices] = values
        return whole


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The state of the rounds that enforce one set of bounds.

    Attributes:
        bounds: the bounds of the state.
        multiplier: (S, k) or (1, k) multipliers at the beginning of the next round, as densities.
        penalty: rho in that round; 0 as long as its natural unit is not known.
        first: the first penalty that is not 0.
        left: violation of the necessary conditions after the last round, in the unit of the state.
        tolerance: the rounds end if the violation is at most this number, in the unit of the state.
        seen: the largest absolute value of the state at the end of a round.
        stalled: number of rounds in a row that changed nothing.
    """

    bounds: StateBounds
    multiplier: Tensor
    penalty: float = 0.0
    first: float = 0.0
    left: float = float("inf")
    tolerance: float = 0.0
    seen: float = 0.0
    stalled: int = 0

    @staticmethod
    def start(bounds: StateBounds, unit: float | None) -> Relaxation:
        """The relaxation before the first round."""
        return Relaxation(bounds, torch.zeros_like(bounds.lower)[None]).begun(unit)

    def begun(self, unit: float | None) -> Relaxation:
        """The relaxation with the first penalty of the path, if it has no penalty yet.

        The unit is the penalty whose curvature is that of the objective; None where it is not known.
        """
        last = self.bounds.penalty
        if last is None and unit is not None:
            last = 1e6 * unit
        if self.penalty > 0.0 or last is None:
            return self
        first = last * _GROWTH ** (1.0 - self.bounds.stages)
        return replace(self, penalty=first, first=first)

    def ended(self) -> Relaxation:
        """The relaxation with the last penalty of the path."""
        return replace(self, penalty=self.first * _GROWTH ** (self.bounds.stages - 1.0))

    @property
    def settled(self) -> bool:
        return self.left <= self.tolerance

    @property
    def hopeless(self) -> bool:
        """Whether neither multipliers nor penalties bring the state nearer to its bounds."""
        return self.stalled >= _MOST_STALLED or self.penalty > _LARGEST * self.first > 0.0

    def term(self) -> BoundTerm | None:
        return BoundTerm(self.bounds, self.multiplier, self.penalty) if self.penalty > 0.0 else None

    def after(self, state: Tensor) -> Relaxation:
        """The relaxation after a round that ended with the coefficients (S, N) of the state."""
        bounds, values = self.bounds, self.bounds.values(state)
        seen = max(self.seen, float(values.abs().max()))
        tolerance = self._tolerance(values)
        shift = self.multiplier / self.penalty if self.penalty > 0.0 else torch.zeros_like(values)
        excess = bounds.excess(values + shift)
        left = float(torch.where(bounds.given, 0.0, excess - shift).abs().max())
        known = replace(self, left=left, tolerance=tolerance, seen=seen)
        if self.penalty == 0.0:
            return known
        multiplier = torch.where(bounds.given, 0.0, self.penalty * excess)
        stalled = self.stalled + 1 if left > max(_STALLED * self.left, tolerance) else 0
        growth = 1.0 if left <= max(_SLOW * self.left, tolerance) else _GROWTH if stalled < 2 else _FAST_GROWTH
        return replace(known, multiplier=multiplier, penalty=growth * self.penalty, stalled=stalled)

    def _tolerance(self, values: Tensor) -> float:
        """The largest excess that bounded coefficients (S, k) may have."""
        return self.bounds.tolerance * max(self.bounds.size(values), _SEEN * self.seen)

    # Scenarios

    def of(self, numbers: np.ndarray) -> Relaxation:
        """The relaxation of some scenarios, given by their numbers."""
        return self if len(self.multiplier) == 1 else replace(self, multiplier=self.multiplier[numbers])

    def averaged(self, weights: Tensor) -> Relaxation:
        """The relaxation with the weighted mean of the multipliers of scenarios, weights (S,)."""
        if len(self.multiplier) == 1:
            return self
        return replace(self, multiplier=(weights / weights.sum() @ self.multiplier)[None])

    # Reports; implements `ConstraintReport`

    def report(self, state: Tensor, v: Tensor) -> Mapping[str, object]:
        values = self.bounds.values(state)
        excess = self.bounds.excess(values)
        worst = int(excess.abs().amax(0).argmax())
        square = float((excess.square().mean(0) * self.bounds.weights).sum())
        return {
            "kind": "state",
            "violation": float(excess.abs().max()),
            "violation_l2": square**0.5,
            "violation_between": self.bounds.between.violation(state),
            "place": self.bounds.places[worst].tolist(),
            "tolerance": self._tolerance(values),
            "multiplier": float((self.multiplier.abs().mean(0) * self.bounds.weights).sum()),
            "penalty": self.penalty,
        }

    def sentence(self, state: Tensor, v: Tensor) -> str:
        values = self.bounds.values(state)
        excess = self.bounds.excess(values).abs().amax(0)
        worst, largest, tolerance = int(excess.argmax()), float(excess.max()), self._tolerance(values)
        at = f" ({self.bounds.place(worst)})" if largest > 0.0 else ""
        return f"the state exceeds its bounds at nodes by at most {largest:.1e}{at}, tolerance {tolerance:.1e}"

    def impossible(self, state: Tensor) -> str:
        """A sentence on why the bounds cannot hold, if this is known; else empty."""
        bounds, values = self.bounds, self.bounds.values(state)
        excess = bounds.excess(values).abs().amax(0)
        given = torch.where(bounds.given, excess, 0.0)
        if float(given.max()) > self.tolerance:
            worst = int(given.argmax())
            return (
                f"the bounds of the state cannot hold: at {bounds.place(worst)} boundary or initial values fix "
                f"the state {float(given.max()):.3g} outside of them ({bounds.key})"
            )
        if self.settled or not self.hopeless:
            return ""
        return (
            f"no control was found with which the bounds of the state hold: {bounds.exceeded(values)} is exceeded by "
            f"{float(excess.max()):.3g} however large the penalty is"
        )
