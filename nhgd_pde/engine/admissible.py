"""Outer variables at which a problem makes no sense: steps are held back before them, and end there for a reason.

The admissible set is open and known by its members only. An optimum at its edge, or beyond, is one that no iterate
reaches and at which no gradient vanishes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from .bilevel import OuterProblem
from .loop import Iterate, Minimum, Stopping
from .outer.base import Feasible, OuterMethod, OuterState
from .reasons import standing

# Share of the way to the edge that a step which would cross it goes: the first one, and those that follow one.
_CAUTION = 0.5, 0.9
# Of the distance between the edge and the starting point: what is left is not worth another step.
_NEAR = 1e-6
# Of the first gradient: a smaller one belongs to an optimum that no edge is to blame for.
_STEEP = 1e-3
# Powers of ten that a step may be too long by, and halvings that find the edge to about a percent of the way to it.
_MOST_TENTHS = 14
_HALVINGS = 8

State = TypeVar("State", bound=OuterState)


@runtime_checkable
class RestrictedProblem(Protocol):
    """What a problem has besides that makes sense for some outer variables (p,) alone."""

    def refusal(self, v: Tensor) -> str:
        """Why the problem makes no sense at v, a sentence; empty where it does."""
        ...

    def ends_at(self, v: Tensor) -> str:
        """A sentence on a run whose steps end at v, the last point before the edge: where that is, and what to do."""
        ...


@runtime_checkable
class SearchingMethod(Protocol):
    """An outer method whose proposals lie on a way from its iterate, which it can be told to go a part of."""

    def shortened(self, state: Any, share: float) -> Any:
        """The state in which the way to the proposal is this share of what it was."""
        ...


@dataclass(frozen=True)
class Edge:
    """Where the way from an iterate to a proposal leaves what is admissible.

    Attributes:
        reason: why the proposal is refused.
        point: (p,) the last admissible point of the way.
    """

    reason: str
    point: Tensor

    def reached(self, space: Feasible, current: Iterate, first: Iterate, crossed: Edge | None) -> bool:
        """The current iterate is as good as there, measured by the distance of the starting point.

        So it is where the last step was cut, too, and what was left of it changed next to nothing, though the gradient
        is far from zero.
        """
        v, start = current.evaluation.v, first.evaluation.v
        left, whole = (space.metric.norm((self.point - each)[None]) for each in (v, start))
        stands = crossed is not None and current.change <= _NEAR * float((v - start).abs().max())
        return left <= _NEAR * whole or (stands and _steep(current, first))


def held_back(
    problem: OuterProblem, outer: OuterMethod[State], space: Feasible, state: State, proposal: Tensor, again: bool
) -> tuple[Tensor, State, Edge | None]:
    """The proposal, nearer to the iterate where the problem refuses it, and the edge on the way to it.

    Args:
        problem, outer, space, state: see `minimise`.
        proposal: (p,) of the method.
        again: the step to the iterate was held back, too.
    """
    if not isinstance(problem, RestrictedProblem):
        return proposal, state, None
    reason = problem.refusal(proposal)
    if not reason:
        return proposal, state, None
    start = state.best.v
    if not isinstance(outer, SearchingMethod):
        share, reason = _last(lambda share: start + share * (proposal - start), problem.refusal, reason)
        return proposal, state, Edge(reason, start + share * (proposal - start))
    search = outer.shortened

    def point(share: float) -> Tensor:
        return outer.propose(space, search(state, share))[0]

    share, reason = _last(point, problem.refusal, reason)
    edge = Edge(reason, point(share))
    if torch.equal(edge.point, start):
        return proposal, state, edge
    # A share of zero is the longest step that the method knows to be too short: it is as far as any gets.
    nearer, state = outer.propose(space, search(state, _CAUTION[again] * share))
    return nearer, state, edge


def _last(point: Callable[[float], Tensor], refusal: Callable[[Tensor], str], reason: str) -> tuple[float, str]:
    """The largest share of a way at which it is admissible, up to a percent, and why it is not right behind it."""
    low, high = 0.1, 1.0
    for _ in range(_MOST_TENTHS):
        said = refusal(point(low))
        if not said:
            break
        low, high, reason = 0.1 * low, low, said
    else:
        return 0.0, reason
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        said = refusal(point(middle))
        low, high = (low, middle) if said else (middle, high)
        reason = said or reason
    return low, reason


def ended_at_edge(
    problem: OuterProblem, edge: Edge, current: Iterate, first: Iterate, goal: float, stopping: Stopping
) -> Minimum:
    """The end of a run that the edge of what is admissible keeps from going on."""
    assert isinstance(problem, RestrictedProblem)
    where = problem.ends_at(current.evaluation.v)
    return Minimum(current, first, "stopped", f"{edge.reason}; {where}; {standing(current, first, goal, stopping)}")


def _steep(current: Iterate, first: Iterate) -> bool:
    """The gradient is not about to vanish, as it would at an optimum within."""
    return current.gradient_norm > _STEEP * first.gradient_norm


def explained(end: Minimum, problem: OuterProblem, edge: Edge | None, goal: float, stopping: Stopping) -> Minimum:
    """The end of a run whose last steps an edge may have cut: small steps and a search without success say so."""
    if edge is None or end.status not in ("converged", "stopped") or stopping.small(end.last, goal):
        return end
    if end.last.iteration >= stopping.iterations or not _steep(end.last, end.first):
        return replace(end, message=f"{end.message}; the last step was cut: {edge.reason}")
    return ended_at_edge(problem, edge, end.last, end.first, goal, stopping)
