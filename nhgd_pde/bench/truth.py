"""The truth about a point: reduced objective and gradient by the exact adjoint, on a copy of the problem."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from ..engine.oracle import Accuracy, Oracle
from ..engine.outer.base import Feasible
from ..engine.outer.reduced_objective import Evaluation
from ..engine.search import outer_space
from ..linalg.threads import at_most_threads
from ..methods.adjoint import Adjoint
from ..methods.sample_average import SampleAverage
from ..scenario_problem import ScenarioProblem
from .contenders import Contender
from .trials import Budget, Task, Trial, run

_EXACT = Accuracy(1e-12, 1e-12)
# Relative difference of the values of one optimum that was found in different ways.
_ROUNDING = 1e-12
_SAME = Contender("adjoint", "adjoint")
# The contender that finds the optimum, whatever outer method the file names.
_REFERENCE = Contender(
    "reference",
    "adjoint",
    {"outer.method": "auto", "outer.step": "auto", "outer.rtol": 1e-10, "outer.atol": 0.0, "outer.iterations": 5000},
)


@dataclass(frozen=True)
class Truth:
    """Phi(v), and the norm of its gradient (with bounds, of the projected step); NaN where there is no state."""

    objective: float
    gradient_norm: float


@dataclass(frozen=True, eq=False)
class Judged:
    """A run, and the truth about each of its points."""

    run: Trial
    truths: tuple[Truth, ...]


@dataclass(frozen=True)
class Reference:
    """The ends of the scale of relative gaps: Phi at the start, the lowest Phi that is known, and who found it."""

    initial: float
    optimum: float
    source: str

    def gap(self, objective: float) -> float:
        """(Phi - Phi*) / (Phi_0 - Phi*)."""
        above, scale = objective - self.optimum, self.initial - self.optimum
        if above <= 0.0:
            return 0.0
        return above / scale if scale > 0.0 else math.inf

    def lowered(self, judged: Judged) -> Reference:
        """The reference, with the lowest value of a run if that is lower by more than rounding."""
        lowest = min((truth.objective for truth in judged.truths if math.isfinite(truth.objective)), default=math.inf)
        lower = lowest < self.optimum - _ROUNDING * abs(self.optimum)
        return Reference(self.initial, lowest, judged.run.contender.label) if lower else self


class Judge:
    """Evaluates the reduced objective of a task exactly; its work does not count for any contender."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.problem = task.build(_SAME)
        self._threads = task.method(_SAME, None, self.problem).threads
        exact: Any = SampleAverage("factors") if isinstance(self.problem, ScenarioProblem) else Adjoint()
        self._oracle: Oracle[Any, Any] = exact
        self.space = replace(outer_space(self.problem), quadratic=False)
        u, v = self.problem.start()
        self._start = self._oracle.init(self.problem, u, v)
        # The state at the last point, as the state at the next point is not far.
        self._near = self._start

    def start(self) -> Tensor:
        """The control (p,) that every run starts from."""
        return self.space.project(self.problem.start()[1])

    def ahead(self) -> Tensor:
        """A control (p,) one step of steepest descent from the start.

        Hypergradients are tried there: at a start of zero the state is often zero, and nothing is left to solve.
        """
        first = self.evaluate(self.start())
        step = self.space.first_step(first)
        for _ in range(30):
            v = self.space.project(first.v - step * first.gradient)
            if self.truth(v).objective <= first.value:
                return v
            step *= 0.5
        return first.v

    def evaluate(self, v: Tensor) -> Evaluation:
        """Phi and its derivative; not finite where Newton's method finds no state."""
        with at_most_threads(self._threads):
            for known in (self._near, self._start):
                evaluation, state = self._oracle.evaluate(self.problem, v, known, _EXACT)
                evaluation = self.space.completed(evaluation)
                if evaluation.finite and evaluation.state_error <= 1e-8:
                    self._near = state
                    return evaluation
        return evaluation

    def solution(self, v: Tensor) -> tuple[Evaluation, Tensor]:
        """Phi and its derivative, with the state (S, n)."""
        return self.evaluate(v), self._near.u

    def truth(self, v: Tensor) -> Truth:
        measuring, evaluation = self._measuring, self.evaluate(v)
        if not (evaluation.finite and evaluation.state_error <= 1e-8):
            return Truth(math.nan, math.nan)
        return Truth(evaluation.value, measuring.stationarity(evaluation))

    @cached_property
    def _measuring(self) -> Feasible:
        """The space with a unit that belongs to the start, so that all points of all runs are measured alike."""
        return self.space.scaled(self.evaluate(self.start()))

    def judge(self, finished: Trial) -> Judged:
        """The truth about every point of a run."""
        return Judged(finished, tuple(self.truth(point.v) for point in finished.points))

    def reference(self, budget: Budget, interrupted: Callable[[], bool] = lambda: False) -> Reference:
        """The optimum as exact adjoints and L-BFGS find it, to a relative gradient of 1e-10."""
        initial = self.truth(self.start()).objective
        found = run(self.task, _REFERENCE, 0, budget, interrupted)
        return Reference(initial, initial, "the start").lowered(self.judge(found))
