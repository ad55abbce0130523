"""Members of a population, and the local search of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from ..engine.bilevel import OuterProblem
from ..engine.loop import LoopState, Stopping
from ..engine.minimise import minimise
from ..engine.oracle import Oracle
from ..engine.outer.base import OuterMethod
from ..linalg.counts import Counts


class SearchInterruptedError(Exception):
    """A local search was asked to stop: what it has found is not what it would have found."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One member of a population after its local search.

    Attributes:
        v: (p,) the design.
        value: its objective; infinite where it could not be evaluated.
        derivative: (p,) the hypergradient there.
        start_value, start_derivative: the same where the local search has begun.
        evaluations: number of evaluations of this local search.
        settled: the local search has come to its end, so that there is nothing left to search.
    """

    v: Tensor
    value: float
    derivative: Tensor
    start_value: float
    start_derivative: Tensor
    evaluations: int
    settled: bool


class Searcher(Protocol):
    """Searches locally from several designs; the results do not depend on where this is done."""

    def __call__(self, designs: list[Tensor], steps: int) -> list[Candidate]:
        """The ends of the searches, with at most so many steps of the outer method each.

        Raises:
            SearchInterruptedError: it was asked to stop.
        """
        ...


@dataclass(frozen=True)
class LocalSearch:
    """Some steps of the outer method from a given design.

    Attributes:
        started: (p,) design -> the problem that starts there.
        oracle, outer, stopping, judge: see `engine.minimise`; the number of steps is given to each search.
        counts: where the problem counts its work.
        interrupted: asked before every evaluation; true ends the search.
    """

    started: Callable[[Tensor], OuterProblem]
    oracle: Oracle
    outer: OuterMethod
    stopping: Stopping
    judge: Oracle | None = None
    counts: Counts = field(default_factory=Counts)
    interrupted: Callable[[], bool] = lambda: False

    def __call__(self, designs: list[Tensor], steps: int) -> list[Candidate]:
        return [self.member(v, steps) for v in designs]

    def member(self, v: Tensor, steps: int) -> Candidate:
        """The member that the local search from v (p,) ends with.

        Raises:
            SearchInterruptedError: it was asked to stop.
        """
        if self.interrupted():
            raise SearchInterruptedError
        spent = [1]

        def keep(loop: LoopState, last: bool) -> None:
            spent[0] = max(spent[0], loop.evaluations)

        stopping = replace(self.stopping, iterations=steps)
        problem = self.started(v)
        found = minimise(
            problem, self.oracle, self.outer, stopping, interrupted=self.interrupted, keep=keep, judge=self.judge
        )
        if found.status == "interrupted":
            raise SearchInterruptedError
        first, last = found.first.evaluation, found.last.evaluation
        known = last.finite
        return Candidate(
            v=last.v.detach().cpu(),
            value=last.objective if known else math.inf,
            derivative=(last.derivative.detach() if known else last.v * 0.0).cpu(),
            start_value=first.objective if first.finite else math.inf,
            start_derivative=(first.derivative.detach() if first.finite else last.v * 0.0).cpu(),
            evaluations=max(spent[0], found.last.evaluations),
            settled=not (known and found.status == "stopped" and found.last.iteration >= steps),
        )
