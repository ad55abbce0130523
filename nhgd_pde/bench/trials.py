"""Trials: runs of contenders by the loop of every solve, under a budget, with iterates kept for judging."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from ..building.blueprint import blueprint_of
from ..choice.method import Method, build_method
from ..engine.loop import Iterate
from ..engine.minimise import minimise
from ..engine.search import outer_space
from ..linalg.counts import Counts
from ..linalg.threads import at_most_threads
from ..pde_problem import PDEProblem
from ..problem_file.catalogue import SEARCHES
from ..problem_file.loading import ProblemFile
from ..run.judging import fitted
from ..run.outer_problem import nominal_of
from ..run.rounds import penalised
from ..scenario_problem import ScenarioProblem
from .contenders import Contender

Status = Literal["converged", "stopped", "interrupted", "failed", "budget"]

# Ratio of the numbers of two iterates that are kept, at least: 150 of a hundred thousand.
_SPACING = 1.06


@dataclass(frozen=True)
class Task:
    """The problem that all contenders solve.

    Attributes:
        common: overrides for every contender, by dotted path.
    """

    source: str | Path | Mapping[str, Any]
    common: Mapping[str, Any]

    def read(self, contender: Contender, seed: int | None = None) -> ProblemFile:
        """The file as a contender reads it; None leaves the file's seed."""
        return contender.read(self.source, self.common, seed)

    def build(self, contender: Contender) -> PDEProblem | ScenarioProblem:
        """The problem, always of the file's seed: another seed of a method is not another problem.

        With random inputs it is that of the file's scenarios, with the kinks of its risk rounded as `solve` does.
        Bounds of the state are replaced by a penalty, the same for all contenders.
        """
        file = self.read(contender)
        with at_most_threads(1):
            learnt: Any = getattr(file.spec, "task", None)
            if learnt is not None:
                bilevel, _ = learnt.build(file)
                return cast(PDEProblem, bilevel)
            if file.spec.method in SEARCHES:
                message = f"expected a method with one start in a comparison, found {file.spec.method!r}"
                raise file.error("method", f"{message}: its own run reports multi-start beside it")
            if file.spec.passes_steps:
                from ..building.horizon import horizon_of

                return horizon_of(file)
            blueprint = blueprint_of(file)
            return penalised(fitted(blueprint.problem) if file.spec.parameters else blueprint.nominal)

    def method(self, contender: Contender, seed: int | None, problem: PDEProblem | ScenarioProblem) -> Method:
        file, nominal = self.read(contender, seed), nominal_of(problem)
        device = nominal.start()[0].device
        return build_method(file, nominal.inner_shape, device, outer_space(nominal))


@dataclass(frozen=True)
class Budget:
    """The seconds and the solves, as `Counts` counts them, that a run may use."""

    seconds: float = math.inf
    solves: float = math.inf

    def spent(self, seconds: float, solves: int) -> str:
        """A sentence if the budget is used up; else empty."""
        if solves >= self.solves:
            return f"the budget of {self.solves:,.0f} solves is used up"
        return f"the budget of {self.seconds:g} s is used up" if seconds >= self.seconds else ""


@dataclass(frozen=True, eq=False)
class TrialPoint:
    """An outer iterate as the method sees it.

    Attributes:
        seconds: since the first evaluation began, without the time that recording takes.
        evaluations: of the objective so far.
        objective: the value Phi(v) that the method has computed.
        v: (p,).
    """

    iteration: int
    seconds: float
    evaluations: int
    counts: Counts
    objective: float
    v: Tensor


@dataclass(frozen=True, eq=False)
class Trial:
    """One run of a contender.

    Attributes:
        points: outer iterates, all of the first ones, then ever fewer, and the last one.
        status: of the run, or `budget` where that ended it.
        message: a sentence that says why it ended.
        seconds, counts: time and work of the whole run, including what followed the last iterate.
    """

    contender: Contender
    seed: int
    points: tuple[TrialPoint, ...]
    status: Status
    message: str
    seconds: float
    counts: Counts


def run(
    task: Task,
    contender: Contender,
    seed: int,
    budget: Budget,
    interrupted: Callable[[], bool] = lambda: False,
    enough: Callable[[TrialPoint], bool] = lambda point: False,
) -> Trial:
    """Runs a contender on a new copy of the problem.

    Reading, meshing and assembling come before the clock starts; they are the same for all. Factorisations and all
    else that is made on first use belong to the run.

    Args:
        contender, seed: the contender, and the seed of its random numbers.
        budget: checked before every evaluation but the first.
        interrupted: asked at the same time; true ends the run as `interrupted`.
        enough: called with the kept iterates while the clock stands still; true ends the run as `stopped`.
    """
    problem = task.build(contender)
    method = task.method(contender, seed, problem)
    before = replace(problem.counts)
    points: list[TrialPoint] = []
    latest: TrialPoint | None = None
    aside, due, reason = 0.0, 0, ""
    status: Status = "failed"
    start = time.perf_counter()

    def seconds() -> float:
        return time.perf_counter() - start - aside

    def tell(iterate: Iterate) -> None:
        nonlocal aside, due, latest, reason, status
        elapsed, began = seconds(), time.perf_counter()
        evaluation = iterate.evaluation
        counts = problem.counts - before
        latest = TrialPoint(
            iterate.iteration, elapsed, iterate.evaluations, counts, evaluation.value, evaluation.v.clone()
        )
        if iterate.iteration >= due:
            points.append(latest)
            due = max(iterate.iteration + 1, math.ceil(_SPACING * iterate.iteration))
            if enough(latest):
                status, reason = "stopped", "far enough"
        aside += time.perf_counter() - began

    def ended() -> bool:
        nonlocal reason, status
        if not reason:
            reason = budget.spent(seconds(), (problem.counts - before).solves)
            status = "budget"
        return bool(reason) or interrupted()

    try:
        with at_most_threads(method.threads):
            found = minimise(problem, method.oracle, method.outer, method.stopping, tell, ended, judge=method.judge)
        if not reason or found.status != "interrupted":
            status, reason = found.status, found.message
    except KeyboardInterrupt:
        status, reason = "interrupted", "ended in the middle of an iteration"
    total = seconds()
    if latest is not None and latest is not points[-1]:
        points.append(latest)
    return Trial(contender, seed, tuple(points), status, reason, total, problem.counts - before)
