"""A search for constant steps, the same for every contender: powers of three around the automatic step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from ..engine.bilevel import inner_spectrum
from ..engine.outer.adam import Adam
from ..engine.outer.gradient import GradientDescent
from ..engine.outer.stochastic import StochasticApproximation
from ..problem_file.method_spec import HypergradientSpec, InnerSpec
from ..run.outer_problem import nominal_of
from .contenders import Contender
from .trials import Budget, TrialPoint, run
from .truth import Judge, Reference

# The seed of the search, which no run that is shown has.
GRID_SEED = 1_000_003
# The ratio of two steps, the exponents of it that are tried first, and the largest exponent.
_BASE = 3.0
_FIRST = (0, 1, -1, 2, -2)
_FURTHEST = 6
# A run goes on after it has reached the gap for as many iterations as it took, and for this number more.
_PROBATION = 5


@dataclass(frozen=True, order=True)
class _Score:
    """The score of a step; less is better.

    Attributes:
        missed: the gap was not reached.
        solves, products: work until the gap was reached.
        gap: the gap at the end of the run.
    """

    missed: bool
    solves: int
    products: int
    gap: float


@dataclass(frozen=True)
class TunedSteps:
    """A contender with the steps that won, and those steps by dotted path."""

    contender: Contender
    steps: Mapping[str, float]

    def __str__(self) -> str:
        return ", ".join(f"{key}={value:.3g}" for key, value in self.steps.items()) or "no step found"


def has_constant_step(judge: Judge, contender: Contender) -> bool:
    """Whether the outer method takes steps of a given length without a search: Adam, or the gradient method."""
    outer = judge.task.method(contender, None, judge.problem).outer
    if isinstance(outer, StochasticApproximation):
        return not outer.natural
    if isinstance(outer, GradientDescent):
        return outer.step is not None or not outer.search
    return isinstance(outer, Adam)


def search(
    judge: Judge,
    reference: Reference,
    contender: Contender,
    gap: float,
    budget: Budget,
    interrupted: Callable[[], bool] = lambda: False,
) -> TunedSteps:
    """The steps with which a contender needs the fewest solves to a relative gap.

    If no steps reach the gap, the steps that come closest win. The search starts with factors from 1/9 to 9, and goes
    on while the best factor is the smallest or the largest one, or all runs diverge.
    """
    steps: dict[str, float] = {}
    for key, centre in _knobs(judge, contender).items():
        scores: dict[int, _Score] = {}
        waiting = list(_FIRST)
        while waiting and not interrupted():
            exponent = waiting.pop(0)
            tried = contender.with_overrides({**steps, key: centre * _BASE**exponent})
            fewest = min((score.solves for score in scores.values() if not score.missed), default=0)
            scores[exponent] = _score(judge, reference, tried, gap, budget, fewest, interrupted)
            if not waiting:
                waiting = _next(scores)
        if scores:
            steps[key] = centre * _BASE ** _best(scores)
    return TunedSteps(contender.with_overrides(steps), steps)


def _best(scores: Mapping[int, _Score]) -> int:
    return min(scores, key=lambda k: (scores[k], abs(k)))


def _next(scores: Mapping[int, _Score]) -> list[int]:
    """The exponent to go on with: beyond the best one where that is at an end, down where all diverge."""
    best = min(scores) if all(score.gap == math.inf for score in scores.values()) else _best(scores)
    if abs(best) == _FURTHEST or best not in (min(scores), max(scores)):
        return []
    return [best + 1 if best == max(scores) else best - 1]


def _knobs(judge: Judge, contender: Contender) -> dict[str, float]:
    """The automatic values of all constant steps, by dotted path.

    For steps on the state and on the linear system these are the steps that the compared methods take by themselves.
    """
    method = judge.task.method(contender, None, judge.problem)
    first = judge.evaluate(judge.start())
    knobs = {"outer.step": judge.space.first_step(first)}
    if isinstance(method.outer, Adam):
        knobs = {"outer.step": Adam().init(judge.space, first).length}
    elif isinstance(method.outer, StochasticApproximation):
        knobs = {"outer.step": replace(method.outer, step=None).init(judge.space, first).unit}
    inner = {
        "inner.step": "step" in InnerSpec.model_fields and hasattr(method.oracle, "inner_step"),
        "hypergradient.step": "step" in HypergradientSpec.model_fields and hasattr(method.oracle, "linear_step"),
    }
    if any(inner.values()):
        problem = nominal_of(judge.task.build(contender))
        u, v = problem.start()
        least, largest = inner_spectrum(problem, u, v)
        automatic = 2.0 / (least + largest)
        tests = getattr(method.oracle, "tests", None)
        if tests is not None:
            sample = problem.sample(tests, torch.Generator().manual_seed(GRID_SEED))
            automatic = problem.batch(u, v, sample).step / largest
        knobs |= {key: automatic for key, there in inner.items() if there and key not in contender.overrides}
    return knobs


def _score(
    judge: Judge,
    reference: Reference,
    contender: Contender,
    gap: float,
    budget: Budget,
    best: int,
    interrupted: Callable[[], bool],
) -> _Score:
    """The score of a run, which ends once it has used more solves than the best one, or some time after the gap.

    A step that is too long may pass the gap while the objective grows: the run has to be below it after as many
    iterations again.
    """
    there: TrialPoint | None = None

    def enough(point: TrialPoint) -> bool:
        nonlocal there
        if there is None and reference.gap(judge.truth(point.v).objective) <= gap:
            there = point
        if there is None:
            return 0 < best < point.counts.solves
        return point.iteration >= 2 * there.iteration + _PROBATION

    finished = run(judge.task, contender, GRID_SEED, budget, interrupted, enough)
    if not finished.points:
        return _Score(True, 0, 0, math.inf)
    if there is None:
        enough(finished.points[-1])
    final = reference.gap(judge.truth(finished.points[-1].v).objective)
    if there is not None and final <= gap and finished.status != "failed":
        return _Score(False, there.counts.solves, there.counts.products, final)
    return _Score(True, 0, 0, math.inf if math.isnan(final) or finished.status == "failed" else final)
