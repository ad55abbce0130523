"""Runs whose outer variables may leave the admissible set: their steps are shortened, or end at its edge with a reason.

The admissible set is open, and only a test of single points is known. No iterate reaches an optimum at the edge or
beyond it, and the gradient does not become zero on the way there.
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

# A step that would cross the edge goes to this share of its distance: the first number is for a first such step, the
# second one for a step that follows another.
_CAUTION = 0.5, 0.9
# An iterate is at the edge where the remaining distance is below this share of the distance of the starting point.
_NEAR = 1e-6
# Below this norm of the gradient, relative to the first one, the run ends near an optimum and not because of an edge.
_STEEP = 1e-3
# Largest number of powers of ten by which a step may be too long, and number of bisections that find the edge to about
# one per cent of its distance.
_MOST_TENTHS = 14
_HALVINGS = 8

State = TypeVar("State", bound=OuterState)


@runtime_checkable
class RestrictedProblem(Protocol):
    """Further methods of a problem that is defined for some outer variables (p,) only."""

    def refusal(self, v: Tensor) -> str:
        """Why the problem makes no sense at v, a sentence; empty where it does."""
        ...

    def barrier(self, start: Tensor, end: Tensor) -> str:
        """Why a step must not lead from one point to another although both are admissible; empty where it may."""
        ...

    def ends_at(self, v: Tensor) -> str:
        """A sentence on a run whose steps end at v, the last point before the edge: where that is, and what to do."""
        ...


@runtime_checkable
class SearchingMethod(Protocol):
    """An outer method whose proposals lie on a path from its iterate, and which can go a part of this path."""

    def shortened(self, state: Any, share: float) -> Any:
        """The state with which the path to the proposal has this share of its length before."""
        ...


@dataclass(frozen=True)
class Edge:
    """The place where the path from an iterate to a proposal leaves the admissible set.

    Attributes:
        reason: why the proposal is refused.
        point: (p,) the last admissible point of the path.
    """

    reason: str
    point: Tensor

    def reached(self, space: Feasible, current: Iterate, first: Iterate, crossed: Edge | None) -> bool:
        """Whether the current iterate is practically at the edge, compared with the distance of the starting point.

        This is also so where the last step was cut, too, and the shortened step changed almost nothing, although the
        gradient is far from zero.
        """
        v, start = current.evaluation.v, first.evaluation.v
        left, whole = (space.metric.norm((self.point - each)[None]) for each in (v, start))
        stands = crossed is not None and current.change <= _NEAR * float((v - start).abs().max())
        return left <= _NEAR * whole or (stands and _steep(current, first))


def held_back(
    problem: OuterProblem, outer: OuterMethod[State], space: Feasible, state: State, proposal: Tensor, again: bool
) -> tuple[Tensor, State, Edge | None]:
    """The proposal (p,), moved nearer to the iterate where the problem refuses it, the state, and the edge on the way.

    If `again`, the step to the current iterate was shortened, too.
    """
    if not isinstance(problem, RestrictedProblem):
        return proposal, state, None
    start = state.best.v

    def refusal(v: Tensor) -> str:
        return problem.refusal(v) or problem.barrier(start, v)

    reason = refusal(proposal)
    if not reason:
        return proposal, state, None
    if not isinstance(outer, SearchingMethod):
        share, reason = _last(lambda share: start + share * (proposal - start), refusal, reason)
        return proposal, state, Edge(reason, start + share * (proposal - start))
    search = outer.shortened

    def point(share: float) -> Tensor:
        return outer.propose(space, search(state, share))[0]

    share, reason = _last(point, refusal, reason)
    edge = Edge(reason, point(share))
    if torch.equal(edge.point, start):
        return proposal, state, edge
    # A share of zero means the longest step that the method knows to be too short; no shorter step is tried.
    nearer, state = outer.propose(space, search(state, _CAUTION[again] * share))
    return nearer, state, edge


def _last(point: Callable[[float], Tensor], refusal: Callable[[Tensor], str], reason: str) -> tuple[float, str]:
    """The largest admissible share of a path, to one per cent, and the reason why longer shares are refused."""
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
    """The end of a run that cannot go on because its iterate is at the edge of the admissible set."""
    assert isinstance(problem, RestrictedProblem)
    where = problem.ends_at(current.evaluation.v)
    return Minimum(current, first, "stopped", f"{edge.reason}; {where}; {standing(current, first, goal, stopping)}")


def _steep(current: Iterate, first: Iterate) -> bool:
    """Whether the gradient is far from zero, unlike near an optimum inside the admissible set."""
    return current.gradient_norm > _STEEP * first.gradient_norm


def explained(end: Minimum, problem: OuterProblem, edge: Edge | None, goal: float, stopping: Stopping) -> Minimum:
    """The end of a run whose last steps may have been cut by an edge, with a message that says so."""
    if edge is None or end.status not in ("converged", "stopped") or stopping.small(end.last, goal):
        return end
    if end.last.iteration >= stopping.iterations or not _steep(end.last, end.first):
        return replace(end, message=f"{end.message}; the last step was cut: {edge.reason}")
    return ended_at_edge(problem, edge, end.last, end.first, goal, stopping)
