"""Members of a population, and the local search of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ..engine.bilevel import OuterProblem
from ..engine.loop import LoopState, Stopping
from ..engine.minimise import minimise
from ..engine.oracle import Oracle
from ..engine.outer.base import OuterMethod


@dataclass(frozen=True, eq=False)
class Candidate:
    """One member of a population after its local search.

    Attributes:
        v: (p,) the design.
        value: its objective; infinite where it could not be evaluated.
        derivative: (p,) the hypergradient there.
        start_value, start_derivative: the same where the local search has begun.
        evaluations: number of evaluations of this local search.
        settled: the local search has converged, so that there is nothing left to search.
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

    def __call__(self, designs: list[Tensor]) -> list[Candidate]: ...


@dataclass(frozen=True)
class LocalSearch:
    """Some steps of the outer method from a given design.

    Attributes:
        started: (p,) design -> the problem that starts there.
        oracle, outer, stopping: see `engine.minimise`.
    """

    started: Callable[[Tensor], OuterProblem]
    oracle: Oracle
    outer: OuterMethod
    stopping: Stopping
    interrupted: Callable[[], bool] = field(default=lambda: False)

    def __call__(self, designs: list[Tensor]) -> list[Candidate]:
        return [self.member(v) for v in designs]

    def member(self, v: Tensor) -> Candidate:
        """The member that the local search from v (p,) ends with."""
        spent = [1]

        def keep(loop: LoopState, last: bool) -> None:
            spent[0] = max(spent[0], loop.evaluations)

        found = minimise(
            self.started(v), self.oracle, self.outer, self.stopping, interrupted=self.interrupted, keep=keep
        )
        first, last = found.first.evaluation, found.last.evaluation
        known = last.finite
        return Candidate(
            v=last.v.detach(),
            value=last.objective if known else math.inf,
            derivative=last.derivative.detach() if known else last.v * 0.0,
            start_value=first.objective if first.finite else math.inf,
            start_derivative=first.derivative.detach() if first.finite else last.v * 0.0,
            evaluations=max(spent[0], found.last.evaluations),
            settled=found.status == "converged" or not known,
        )
