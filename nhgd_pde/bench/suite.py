"""The benchmark itself: every problem, every contender, every seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..problem_file.errors import Issue, ProblemError
from .contenders import PLACE, Contender, check_contenders
from .grid import has_constant_step, search
from .hypergradients import hypergradient_errors
from .peers import compare_peers
from .results import Errors, ProblemResults
from .trials import Budget, Task, Trial, run
from .truth import Judge


@dataclass(frozen=True)
class Plan:
    """The plan of a benchmark.

    Attributes:
        seeds: number of seeds for each; the first is the seed of the file.
        budget: the budget of a run, the same for all.
        common: overrides for all contenders, by dotted path.
        grid: search for constant steps first.
        gap: the relative gap that the search aims at.
        peers: compare with the hypergradients of other libraries too.
    """

    contenders: tuple[Contender, ...]
    seeds: int
    budget: Budget
    common: Mapping[str, Any]
    grid: bool = False
    gap: float = 1e-4
    peers: bool = False

    def tasks(self, sources: Sequence[str | Path | Mapping[str, Any]]) -> dict[str, Task]:
        """The problems by name, after a check of each with every contender.

        Raises:
            ProblemError: anything wrong with a file or a contender, and two problems of one name.
        """
        tasks: dict[str, Task] = {}
        issues: list[Issue] = []
        for source in sources:
            try:
                check_contenders(self.contenders, source, self.common)
            except ProblemError as error:
                issues += [issue for issue in error.issues if issue not in issues]
                continue
            task = Task(source, self.common)
            spec = task.read(self.contenders[0]).spec
            if self.peers and spec.parameters:
                message = "expected none with --peers: the other libraries take one scenario"
                issues.append(Issue("parameters", message, str(source)))
            if spec.name in tasks:
                issues.append(Issue("name", f"two problems are called {spec.name!r}", str(source)))
            tasks[spec.name] = task
        if issues:
            raise ProblemError(issues)
        for task in tasks.values():
            for contender in self.contenders:
                try:
                    task.method(contender, None, task.build(contender))
                except ProblemError as error:
                    place = f"{PLACE} {contender.label}"
                    issues += [Issue(each.key, each.message, each.place or place) for each in error.issues]
        if issues:
            raise ProblemError(issues)
        return tasks


def bench(
    plan: Plan,
    tasks: Mapping[str, Task],
    interrupted: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[ProblemResults]:
    """Runs a plan; yields the results of a problem again whenever there are more of them.

    Args:
        tasks: from `plan.tasks`.
        interrupted: true ends the benchmark after the current evaluation.
        tell: called with a line about everything that is done.
    """
    for name, task in tasks.items():
        if interrupted():
            return
        judge = Judge(task)
        reference = judge.reference(Budget(), interrupted)
        labels = tuple(contender.label for contender in plan.contenders)
        scenarios, unknowns = judge.problem.inner_shape
        size = f"{scenarios * unknowns:,} state and {judge.problem.outer_size:,} control unknowns"
        results = ProblemResults(name, size, reference, labels)
        tell(f"{name}: {size}; objective {reference.initial:.9e} at the start, {reference.optimum:.9e} at best")
        yield results
        yield from _problem(plan, judge, results, interrupted, tell)


def _problem(
    plan: Plan,
    judge: Judge,
    results: ProblemResults,
    interrupted: Callable[[], bool],
    tell: Callable[[str], None],
) -> Iterator[ProblemResults]:
    first = judge.task.read(plan.contenders[0]).spec.seed
    seeds = range(first, first + plan.seeds)
    chosen: dict[str, Contender] = {}
    for contender in plan.contenders:
        chosen[contender.label] = contender
        if interrupted():
            return
        if plan.grid and has_constant_step(judge, contender):
            choice = search(judge, results.reference, contender, plan.gap, plan.budget, interrupted)
            chosen[contender.label] = choice.contender
            results = replace(results, choices={**results.choices, contender.label: choice})
            tell(f"{results.name} {contender.label}: {choice}")
            yield results
    # Seed by seed, so that a benchmark that is cut short has results of every contender.
    for seed in seeds:
        for contender in chosen.values():
            if interrupted():
                return
            judged = judge.judge(run(judge.task, contender, seed, plan.budget, interrupted))
            reference = results.reference.lowered(judged)
            results = replace(results, runs=(*results.runs, judged), reference=reference)
            gap = results.gaps(judged)[-1] if judged.truths else float("nan")
            tell(f"{results.name} {contender.label}, seed {seed}: {_line(judged.run)}, gap {gap:.1e}")
            yield results
            if judged.run.status == "interrupted":
                return
    for seed in seeds:
        for contender in chosen.values():
            if interrupted():
                return
            errors = hypergradient_errors(judge, contender, seed, plan.budget, interrupted)
            results = replace(results, errors=(*results.errors, Errors(contender.label, seed, errors)))
            yield results
    if plan.peers and not interrupted():
        yield replace(results, peers=compare_peers(judge))


def _line(finished: Trial) -> str:
    iterations = finished.points[-1].iteration if finished.points else 0
    return (
        f"{finished.status} after {iterations:,} iterations, {finished.counts.solves:,} solves, "
        f"{finished.seconds:.2g} s"
    )
