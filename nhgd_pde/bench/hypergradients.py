"""How fast a method's hypergradient becomes right at one outer point, as its inner steps go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from ..engine.oracle import Accuracy, GrowingOracle
from ..linalg.counts import Counts
from ..linalg.riesz import RieszMap
from ..linalg.threads import at_most_threads
from .contenders import Contender
from .trials import Budget
from .truth import Judge

# Largest numbers of inner steps and of evaluations: enough to see where the error levels off. The second one is for
# methods that end their inner loop early.
_MOST_STEPS = 1024
_MOST_EVALUATIONS = 64
_TIGHT = Accuracy(1e-12, 1e-12)
# Relative error at which a hypergradient is right.
_RIGHT = 1e-13


@dataclass(frozen=True)
class HypergradientError:
    """The hypergradient after some inner steps at one point.

    Attributes:
        inner_steps, refinement_steps: number of steps so far, in all evaluations together.
        error: |h - h_exact| / |h_exact| in the dual norm of the outer space.
    """

    inner_steps: int
    refinement_steps: int
    evaluations: int
    seconds: float
    counts: Counts
    error: float


def relative_error(metric: RieszMap, derivative: Tensor, exact: Tensor) -> float:
    """|derivative - exact| / |exact| in the dual norm of a metric; covectors (p,)."""
    length = metric.dual_norm(exact[None])
    return metric.dual_norm((derivative - exact)[None]) / length if length > 0.0 else float("nan")


def hypergradient_errors(
    judge: Judge,
    contender: Contender,
    seed: int,
    budget: Budget,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[HypergradientError, ...]:
    """Evaluates a method again and again at one point (`Judge.ahead`), each time from the state it has reached.

    If the method has the option `inner.steps`, an evaluation takes as many steps as all evaluations before it together,
    so that the sums are powers of two. If it looks at some of the scenarios first, it looks at more of them each time.
    It is asked for full accuracy, and stops when it has that, or at the end of its budget.
    """
    task = judge.task
    problem = task.build(contender)
    u, _ = problem.start()
    v = judge.ahead()
    exact = judge.evaluate(v).derivative
    before = replace(problem.counts)
    inner = refinement = evaluations = 0
    elapsed = 0.0
    found: list[HypergradientError] = []
    state = None
    while inner < _MOST_STEPS and evaluations < _MOST_EVALUATIONS:
        method = task.method(contender.with_overrides({"inner.steps": max(inner, 1)}), seed, problem)
        began = time.perf_counter()
        with at_most_threads(method.threads):
            if state is None:
                state = method.oracle.init(problem, u, v)
            elif isinstance(method.oracle, GrowingOracle):
                state = method.oracle.grown(problem, state, 0.0, 1.0, 0.0) or state
            evaluation, state = method.oracle.evaluate(problem, v, state, _TIGHT)
        elapsed += time.perf_counter() - began
        inner, refinement = inner + evaluation.inner_steps, refinement + evaluation.refinement_steps
        evaluations += 1
        counts = problem.counts - before
        error = relative_error(judge.problem.outer_metric, evaluation.derivative, exact)
        found.append(HypergradientError(inner, refinement, evaluations, elapsed, counts, error))
        if error <= _RIGHT or interrupted() or budget.spent(elapsed, counts.solves):
            break
    return tuple(found)
