"""The method of moving asymptotes, globally convergent: box bounds, and one constraint where there is one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...linalg.safe_lengths import dot
from .base import DESIGN_STANDSTILL, Feasible, HessianProduct, Need, OuterMethod, OuterState, Setting
from .multiplier import find_multiplier
from .reduced_objective import Evaluation, value_noise

# Largest number of points proposed for one iterate.
_MOST_TRIALS = 40
# Each derivative also enters, with this share, at the asymptote on its other side, so that every term is strictly
# convex.
_BOTH_SIDES = 1e-3
# The next iterate starts with this share of the convexity that was enough for the last one, which saves rejected
# trials.
_KEPT = 0.8
# Smallest and largest distance of asymptotes from the iterate, in units of upper - lower.
_NEAREST, _FARTHEST = 0.01, 10.0


@dataclass(frozen=True)
class Approximation:
    """f(v) approximated by r + sum_j p_j / (upper_j - v_j) + q_j / (v_j - lower_j), exact to first order."""

    p: Tensor
    q: Tensor
    constant: float

    def value(self, v: Tensor, asymptotes: tuple[Tensor, Tensor]) -> float:
        lower, upper = asymptotes
        return self.constant + float((self.p / (upper - v) + self.q / (v - lower)).sum())


@dataclass(frozen=True)
class MMAState(OuterState):
    """Attributes:
    asymptotes: lower and upper (p,), of the current iterate.
    previous, earlier: (p,) the last iterate and the one before.
    convexity: coefficients that keep the approximations of the objective and of the constraint above both.
    least: convexities below this are not used.
    expected: the approximation of the objective at the point proposed.
    distance: how much `expected` grows there for a convexity of one.
    trials: number of points proposed since the current iterate.
    """

    asymptotes: tuple[Tensor, Tensor]
    previous: Tensor | None
    earlier: Tensor | None
    convexity: tuple[float, float]
    least: tuple[float, float]
    expected: float = 0.0
    distance: float = 0.0
    trials: int = 0


@dataclass(frozen=True)
class MMA(OuterMethod[MMAState]):
    """MMA (Svanberg 1987), with the conservative approximations of its globally convergent version (GCMMA, 2002).

    Every iterate minimises a separable convex approximation; a point where the objective or the constraint lies
    above its approximation is rejected and the approximation made more convex, so that from a feasible point the
    objective never rises and the constraint stays satisfied. The constraint costs no evaluation of the objective:
    its approximation is repaired first. The subproblem has one multiplier, found exactly. Asymptotes and move
    limits as published; the convexities are weighted by the diagonal inner product, so that they do not depend on
    the mesh, their least value is relative to the first gradient, and those of the last iterate are kept for the most
    part.

    Attributes:
        first: distance of the first asymptotes, in ranges upper - lower.
        closer, wider: factors of that distance where a variable oscillates and where it does not.
        move: longest step of a variable, in ranges.
        margin: share of the way to its asymptotes that a variable keeps from them.
    """

    first: float = 0.5
    closer: float = 0.7
    wider: float = 1.2
    move: float = 0.5
    margin: float = 0.1
    takes: ClassVar[frozenset[Need]] = frozenset({"constraint"})
    options: ClassVar[tuple[str, ...]] = ("move",)

    @classmethod
    def standstill(cls, setting: Setting) -> float | None:
        return DESIGN_STANDSTILL if setting.design else None

    def objection(self, space: Feasible) -> str:
        if space.bounds is None or not all(bool(torch.isfinite(bound).all()) for bound in space.bounds):
            return "mma needs a lower and an upper bound of every variable (control.bounds)"
        return ""

    def init(self, space: Feasible, first: Evaluation) -> MMAState:
        objective, constraint = _convexities(space, first)
        return self._iterate(space, first, None, None, (1e-6 * objective, 1e-6 * constraint))

    def propose(
        self, space: Feasible, state: MMAState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, MMAState]:
        v, (of_objective, of_constraint) = state.best.v, state.convexity
        objective = _approximation(space, v, state.best.value, state.best.derivative, state.asymptotes, of_objective)
        constraint = space.constraint
        if constraint is None:
            proposal = self._minimiser(space, state, objective, None)
        else:
            value, derivative = constraint.value(v), constraint.derivative(v)
            noise = 1e-12 * (abs(value) + dot(derivative.abs(), _range(space)))
            for _ in range(_MOST_TRIALS):
                bound = _approximation(space, v, value, derivative, state.asymptotes, of_constraint)
                proposal = self._minimiser(space, state, objective, bound)
                over = constraint.value(proposal) - bound.value(proposal, state.asymptotes)
                if over <= noise:
                    break
                of_constraint = _larger(of_constraint, over / _distance(space, v, proposal, state.asymptotes))
        return proposal, replace(
            state,
            convexity=(of_objective, of_constraint),
            expected=objective.value(proposal, state.asymptotes),
            distance=_distance(space, v, proposal, state.asymptotes),
        )

    def update(self, space: Feasible, state: MMAState, evaluation: Evaluation) -> MMAState:
        over = evaluation.value - state.expected
        if math.isfinite(over) and over <= value_noise(state.best, evaluation):
            kept = max(state.least[0], _KEPT * state.convexity[0]), max(state.least[1], _KEPT * state.convexity[1])
            reached = self._iterate(space, evaluation, state.best.v, state.previous, kept, state.asymptotes)
            return replace(reached, least=state.least)
        trials = state.trials + 1
        failure = "no approximation of the objective was conservative" if trials > _MOST_TRIALS else ""
        missing = over / state.distance if math.isfinite(over) and state.distance > 0.0 else math.inf
        convexity = (_larger(state.convexity[0], missing), state.convexity[1])
        return replace(state, convexity=convexity, trials=trials, accepted=False, failure=failure)

    def _iterate(
        self,
        space: Feasible,
        best: Evaluation,
        previous: Tensor | None,
        earlier: Tensor | None,
        least: tuple[float, float],
        before: tuple[Tensor, Tensor] | None = None,
    ) -> MMAState:
        objective, constraint = _convexities(space, best)
        return MMAState(
            best=best,
            asymptotes=self._asymptotes(space, best.v, previous, earlier, before),
            previous=previous,
            earlier=earlier,
            convexity=(max(objective, least[0]), max(constraint, least[1])),
            least=least,
            step=1.0,
        )

    def _asymptotes(
        self,
        space: Feasible,
        v: Tensor,
        previous: Tensor | None,
        earlier: Tensor | None,
        before: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        span = _range(space)
        if previous is None or earlier is None or before is None:
            return v - self.first * span, v + self.first * span
        turned = (v - previous) * (previous - earlier)
        factor = torch.where(turned > 0.0, self.wider, torch.where(turned < 0.0, self.closer, 1.0))
        nearest, farthest = _NEAREST * span, _FARTHEST * span
        below = torch.clamp(factor * (previous - before[0]), nearest, farthest)
        above = torch.clamp(factor * (before[1] - previous), nearest, farthest)
        return v - below, v + above

    def _minimiser(
        self, space: Feasible, state: MMAState, objective: Approximation, bound: Approximation | None
    ) -> Tensor:
        """The minimiser of the approximation within the move limits for which the approximated constraint is at most
        0."""
        assert space.bounds is not None
        (lower, upper), v, span = state.asymptotes, state.best.v, _range(space)
        limit = (1.0 - self.margin) * (v - lower), (1.0 - self.margin) * (upper - v)
        least = torch.maximum(space.bounds[0], v - torch.minimum(limit[0], self.move * span))
        most = torch.minimum(space.bounds[1], v + torch.minimum(limit[1], self.move * span))

        def minimiser(p: Tensor, q: Tensor) -> Tensor:
            p, q = p.sqrt(), q.sqrt()
            total = p + q
            # A variable with neither term does not move.
            point = torch.where(total > 0.0, (lower * p + upper * q) / torch.where(total > 0.0, total, 1.0), v)
            return torch.minimum(torch.maximum(point, least), most)

        if bound is None:
            return minimiser(objective.p, objective.q)

        def at(multiplier: float) -> Tensor:
            return minimiser(objective.p + multiplier * bound.p, objective.q + multiplier * bound.q)

        sizes = float((objective.p + objective.q).sum()), float((bound.p + bound.q).sum())
        unit = sizes[0] / sizes[1] if min(sizes) > 0.0 else 1.0
        return at(find_multiplier(lambda multiplier: bound.value(at(multiplier), state.asymptotes), unit))


def _range(space: Feasible) -> Tensor:
    """Upper minus lower bound; one where they agree, and nothing moves."""
    assert space.bounds is not None
    span = space.bounds[1] - space.bounds[0]
    return torch.where(span > 0.0, span, 1.0)


def _weights(space: Feasible) -> Tensor:
    """The diagonal of the inner product, one on average."""
    return space.mass / space.mass.mean()


def _convexities(space: Feasible, at: Evaluation) -> tuple[float, float]:
    """The first convexities of objective and constraint: a tenth of the change by full steps, on average."""

    def convexity(derivative: Tensor) -> float:
        return 0.1 * dot(derivative.abs(), _range(space)) / len(at.v)

    constraint = 0.0 if space.constraint is None else convexity(space.constraint.derivative(at.v))
    return convexity(at.derivative), constraint


def _approximation(
    space: Feasible, v: Tensor, value: float, derivative: Tensor, asymptotes: tuple[Tensor, Tensor], convexity: float
) -> Approximation:
    lower, upper = asymptotes
    rising, falling = derivative.clamp(min=0.0), (-derivative).clamp(min=0.0)
    extra = convexity * _weights(space) / _range(space)
    p = (upper - v) ** 2 * ((1.0 + _BOTH_SIDES) * rising + _BOTH_SIDES * falling + extra)
    q = (v - lower) ** 2 * (_BOTH_SIDES * rising + (1.0 + _BOTH_SIDES) * falling + extra)
    return Approximation(p, q, value - float((p / (upper - v) + q / (v - lower)).sum()))


def _distance(space: Feasible, v: Tensor, to: Tensor, asymptotes: tuple[Tensor, Tensor]) -> float:
    """The growth of an approximation from v to another point for a convexity of one."""
    lower, upper = asymptotes
    terms = (upper - lower) * (to - v) ** 2 / ((upper - to) * (to - lower) * _range(space))
    return dot(_weights(space), terms)


def _larger(convexity: float, missing: float) -> float:
    """The convexity after one that was too small by `missing`, as published."""
    return min(1.1 * (convexity + missing), 10.0 * convexity)
