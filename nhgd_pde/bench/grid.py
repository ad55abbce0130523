"""A search for constant steps, the same for every contender that has one: powers of three around the automatic one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..engine.outer.adam import Adam
from ..engine.outer.gradient import GradientDescent
from .contenders import Contender
from .measure import Judge, Reference
from .runs import Budget, Point, Run, run

# No run that is shown has this seed.
GRID_SEED = 1_000_003
_BASE = 3.0
_FIRST = (0, 1, -1, 2, -2)
_FURTHEST = 6


@dataclass(frozen=True, order=True)
class _Score:
    """Less is better: not there, solves to the gap, products to it, gap at the end."""

    missed: bool
    solves: int
    products: int
    gap: float


@dataclass(frozen=True)
class Choice:
    """A contender with the steps that won, and those steps by dotted path."""

    contender: Contender
    steps: Mapping[str, float]

    def __str__(self) -> str:
        return ", ".join(f"{key}={value:.3g}" for key, value in self.steps.items()) or "no step found"


def has_constant_step(judge: Judge, contender: Contender) -> bool:
    """The outer method takes steps of one length throughout: Adam, or a gradient method that is given a number."""
    outer = judge.task.method(contender, None, judge.problem).outer
    return isinstance(outer, Adam) or (isinstance(outer, GradientDescent) and outer.step is not None)


def search(
    judge: Judge,
    reference: Reference,
    contender: Contender,
    gap: float,
    budget: Budget,
    interrupted: Callable[[], bool] = lambda: False,
) -> Choice:
    """The steps with which a contender needs the fewest solves to a relative gap.

    Where none gets there it is those that come closest. It starts with factors from 1/9 to 9 and goes on while the
    best one is at an end.
    """
    steps: dict[str, float] = {}
    for key, centre in _knobs(judge, contender).items():
        scores: dict[int, _Score] = {}
        waiting = list(_FIRST)
        while waiting and not interrupted():
            exponent = waiting.pop(0)
            tried = contender.with_overrides({**steps, key: centre * _BASE**exponent})
            scores[exponent] = _score(judge, reference, tried, gap, _tighter(budget, scores), interrupted)
            best = min(scores, key=lambda k: (scores[k], abs(k)))
            if not waiting and best in (min(scores), max(scores)) and abs(best) < _FURTHEST:
                waiting = [best + (1 if best == max(scores) else -1)]
        if scores:
            steps[key] = centre * _BASE ** min(scores, key=lambda k: (scores[k], abs(k)))
    return Choice(contender.with_overrides(steps), steps)


def _knobs(judge: Judge, contender: Contender) -> dict[str, float]:
    """Dotted path of every constant step -> its automatic value."""
    outer = judge.task.method(contender, None, judge.problem).outer
    first = judge.evaluate(judge.start())
    automatic = Adam().init(judge.space, first).length if isinstance(outer, Adam) else judge.space.first_step(first)
    return {"outer.step": automatic}


def _tighter(budget: Budget, scores: Mapping[int, _Score]) -> Budget:
    """No more solves than the best so far: who needs more cannot win."""
    solves = min((score.solves for score in scores.values() if not score.missed), default=0)
    return Budget(budget.seconds, min(budget.solves, solves + 1)) if solves else budget


def _score(
    judge: Judge,
    reference: Reference,
    contender: Contender,
    gap: float,
    budget: Budget,
    interrupted: Callable[[], bool],
) -> _Score:
    def there(point: Point) -> bool:
        return reference.gap(judge.truth(point.v).objective) <= gap

    finished: Run = run(judge.task, contender, GRID_SEED, budget, interrupted, there)
    if not finished.points:
        return _Score(True, 0, 0, math.inf)
    last = finished.points[-1]
    final = reference.gap(judge.truth(last.v).objective)
    if final <= gap:
        return _Score(False, last.counts.solves, last.counts.products, final)
    return _Score(True, 0, 0, math.inf if math.isnan(final) or finished.status == "failed" else final)
