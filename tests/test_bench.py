"""Comparison of methods: measuring changes no run, gaps are exact, budgets hold, and the files have the results."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import nhgd_pde as nhgd
from nhgd_pde.bench.contenders import Contender, check_contenders, parse_contenders
from nhgd_pde.bench.figures import Plot, plots
from nhgd_pde.bench.grid import GRID_SEED, has_constant_step, search
from nhgd_pde.bench.hypergradients import hypergradient_errors, relative_error
from nhgd_pde.bench.results import ProblemResults
from nhgd_pde.bench.suite import Plan, bench
from nhgd_pde.bench.table import csv_text, markdown, table
from nhgd_pde.bench.trials import Budget, Task, Trial, TrialPoint, run
from nhgd_pde.bench.truth import Judge, Judged, Reference, Truth
from nhgd_pde.cli import main
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.problem_file.errors import ProblemError

PROBLEM: dict[str, Any] = {
    "name": "small",
    "mesh": {"kind": "rectangle", "cells": [8, 8]},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "sin(pi*x)*y"},
        {"kind": "regularisation", "weight": 1e-4},
    ],
}
ADJOINT = Contender("adjoint", "adjoint")
SAMPLED = Contender(
    "sampled",
    "nhgd",
    {
        "inner.model": "residual",
        "inner.tests": 32,
        "inner.steps": 3,
        "curvature.kind": "dense",
        "hypergradient.refine": "off",
        "outer.method": "gradient",
        "outer.step": 10.0,
    },
)
SAMPLED_TEXT = "sampled=nhgd:" + ",".join(f"{key}={value}" for key, value in SAMPLED.overrides.items())


@pytest.fixture(scope="module")
def task() -> Task:
    return Task(PROBLEM, {})


@pytest.fixture(scope="module")
def judge(task: Task) -> Judge:
    return Judge(task)


@pytest.fixture(scope="module")
def optimum(judge: Judge) -> torch.Tensor:
    """The minimiser by a dense solve with the reduced Hessian, from gradients at the unit vectors."""
    v = judge.start()
    first = judge.evaluate(v).derivative
    hessian = torch.stack([judge.evaluate(v + e).derivative - first for e in torch.eye(len(v), dtype=v.dtype)])
    return v - torch.linalg.solve(hessian, first)


# Scenarios

RANDOM: dict[str, Any] = {
    **PROBLEM,
    "name": "random",
    "parameters": {"a": {"normal": [0, 1]}, "k": {"field": {"length": 0.4, "std": 0.5, "modes": 4}}},
    "pde": {**PROBLEM["pde"], "conductivity": "exp(0.3*a + k)"},
    "scenarios": {"count": 32, "batch": 8},
}
OVER_SCENARIOS = [
    "nhgd,adjoint,cg=sample_average:adjoints.solver=cg",
    "rm=robbins_monro:adjoints.batch=4,adjoints.tolerance=0.1",
]


@pytest.mark.slow
@pytest.mark.parametrize("risk", ["mean", {"cvar": 0.8}])
def test_methods_over_scenarios_are_judged_over_all_of_them(risk: Any) -> None:
    file = {**RANDOM, "risk": risk}
    plan = Plan(parse_contenders(OVER_SCENARIOS[: 2 if risk == "mean" else 1]), 1, Budget(solves=16_000), {})
    *_, results = bench(plan, plan.tasks([file]))
    solution = nhgd.solve(nhgd.load(file, {"outer.rtol": 1e-9}))
    # Runs are compared by the smoothed measure, which is what they minimise; the solution has the measure itself.
    smoothed = Judge(next(iter(plan.tasks([file]).values()))).truth(torch.from_numpy(solution.control)).objective
    assert results.reference.optimum == pytest.approx(smoothed, rel=1e-9)
    assert solution.objective == pytest.approx(smoothed, rel=1e-9 if risk == "mean" else 0.02)
    finals = {judged.run.contender.label: results.gaps(judged)[-1] for judged in results.runs}
    assert max(finals[label] for label in ("nhgd", "adjoint", "cg")) < 1e-8
    if risk == "mean":
        # Steps by the rule reduce the objective, but far less than the other methods.
        assert 1e-8 < finals["rm"] < 0.5
    ends = {each.label: each.errors[-1].error for each in results.errors}
    assert max(ends[label] for label in ("nhgd", "adjoint", "cg")) < 1e-9


def test_a_search_finds_the_scale_of_a_rule_for_steps_over_scenarios() -> None:
    task = Task(RANDOM, {})
    judge, (rule, searched) = Judge(task), parse_contenders(["robbins_monro,nhgd"])
    assert has_constant_step(judge, rule) and not has_constant_step(judge, searched)
    choice = search(judge, judge.reference(Budget()), rule, 0.05, Budget(solves=1000))
    found, tried = (run(task, each, 0, Budget(solves=2000)) for each in (choice.contender, rule))
    assert judge.truth(found.points[-1].v).objective < judge.truth(tried.points[-1].v).objective


def test_other_libraries_take_no_scenarios() -> None:
    plan = Plan(parse_contenders(["nhgd"]), 1, Budget(), {}, peers=True)
    with pytest.raises(ProblemError, match="parameters: expected none with --peers"):
        plan.tasks([RANDOM])


# Contenders


def test_contenders_are_parsed() -> None:
    texts = ["nhgd, adjoint:outer.method=gradient", "dense=nhgd:curvature.kind=dense,inner.tests=64,second=nhgd"]
    assert parse_contenders(texts) == (
        Contender("nhgd", "nhgd"),
        Contender("adjoint:outer.method=gradient", "adjoint", {"outer.method": "gradient"}),
        Contender("dense", "nhgd", {"curvature.kind": "dense", "inner.tests": 64}),
        Contender("second", "nhgd"),
    )
    (one,) = parse_contenders(["nhgd:outer={method: gradient, step: 2},inner.model=energy,inner.tests=8"])
    assert one.overrides == {"outer": {"method": "gradient", "step": 2}, "inner.model": "energy", "inner.tests": 8}
    assert one.label == "nhgd:outer={method: gradient, step: 2},inner.model=energy,inner.tests=8"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected METHOD or LABEL=METHOD"),
        ("nhgd,", "expected METHOD or LABEL=METHOD"),
        ("inner.tests=3,nhgd", "found 'inner.tests=3'"),
        ("nhgd,adjoint,nhgd", "'nhgd' is given twice"),
        ("nhgd:iner.tests=3", "did you mean 'inner'"),
        ("nhgd:mesh.cells=[4, 4]", "solve the same problem"),
        ("nhgd:seed=3", "solve the same problem"),
        ("nhgd,element=P2", "solve the same problem"),
        ("nhgd:inner.tests", "expected key=value"),
        ("adjont", "did you mean 'adjoint'"),
        ("nhgd:outer.method=gradiant", "did you mean 'gradient'"),
    ],
)
def test_bad_contenders_are_named_with_suggestions(text: str, said: str) -> None:
    with pytest.raises(ProblemError) as caught:
        check_contenders(parse_contenders([text]), PROBLEM, {})
    assert said in str(caught.value)
    assert str(caught.value).startswith("--methods")


def test_a_mistake_in_the_file_is_reported_once() -> None:
    with pytest.raises(ProblemError) as caught:
        check_contenders(parse_contenders(["nhgd,adjoint"]), {**PROBLEM, "element": "P7"}, {})
    assert len(caught.value.issues) == 1


def test_a_budget_ends_runs_not_a_number_of_iterations(task: Task) -> None:
    assert task.read(ADJOINT).spec.outer.iterations >= 10**6
    assert Task(PROBLEM, {"outer.iterations": 7}).read(ADJOINT).spec.outer.iterations == 7


# Runs


@pytest.mark.parametrize("contender", [Contender("nhgd", "nhgd"), ADJOINT, SAMPLED], ids=lambda each: each.label)
def test_a_run_has_the_numbers_of_a_solve(task: Task, contender: Contender) -> None:
    seed = 3
    overrides = {"outer.iterations": 8, "method": contender.method, "seed": seed, **contender.overrides}
    solution = nhgd.solve(nhgd.load(PROBLEM, overrides))
    found = run(task, contender.with_overrides({"outer.iterations": 8}), seed, Budget())
    assert [point.objective for point in found.points] == [row["objective"] for row in solution.history]
    for name in ("solves", "factorisations"):
        assert [getattr(point.counts, name) for point in found.points] == [row[name] for row in solution.history]
    assert found.counts.as_dict() == solution.stats["solves"]
    assert (found.points[-1].v.numpy() == solution.control).all()
    assert found.status == solution.status


def test_seeds_differ_and_repeat(task: Task) -> None:
    few = SAMPLED.with_overrides({"outer.iterations": 3})
    one, two, again = (run(task, few, seed, Budget()).points[-1].objective for seed in (1, 2, 1))
    assert one == again
    assert one != two


def test_measuring_takes_no_time_of_the_budget_and_changes_nothing(task: Task, judge: Judge) -> None:
    def slow(point: TrialPoint) -> bool:
        judge.truth(point.v)
        time.sleep(0.05)
        return False

    free = run(task, ADJOINT, 0, Budget())
    begin = time.perf_counter()
    watched = run(task, ADJOINT, 0, Budget(), enough=slow)
    assert watched.seconds <= time.perf_counter() - begin - 0.05 * len(watched.points)
    assert len(watched.points) > 5
    assert [point.counts for point in watched.points] == [point.counts for point in free.points]
    assert [point.objective for point in watched.points] == [point.objective for point in free.points]


def test_the_budget_in_solves_holds_within_one_evaluation(task: Task) -> None:
    found = run(task, SAMPLED, 0, Budget(solves=900))
    used = [point.counts.solves for point in found.points]
    assert found.status == "budget"
    assert "900 solves" in found.message
    assert found.points[-1].evaluations == found.points[-2].evaluations + 1
    assert used[-2] < 900 <= used[-1] == found.counts.solves


def test_the_budget_in_seconds_holds(task: Task) -> None:
    found = run(task, SAMPLED, 0, Budget(seconds=0.2))
    assert found.status == "budget"
    assert found.seconds >= 0.2
    assert all(point.seconds < 0.2 for point in found.points[:-1])


def test_a_run_can_be_interrupted_and_ended_early(task: Task) -> None:
    assert run(task, SAMPLED, 0, Budget(), lambda: True).status == "interrupted"
    found = run(task, SAMPLED, 0, Budget(), enough=lambda point: point.iteration >= 4)
    assert (found.status, found.points[-1].iteration) == ("stopped", 4)


def test_many_iterates_are_thinned_and_the_last_is_kept(task: Task) -> None:
    slow = ADJOINT.with_overrides({"outer.method": "gradient", "outer.step": 1e-3, "outer.iterations": 297})
    iterations = [point.iteration for point in run(task, slow, 0, Budget()).points]
    assert iterations[:10] == list(range(10))
    assert iterations[-1] == 297
    assert 40 < len(iterations) < 80
    assert all(later <= 1.06 * earlier + 1 for earlier, later in pairwise(iterations))


def test_a_failed_start_is_a_run_without_points() -> None:
    singular = {**PROBLEM["pde"], "boundary": {"left": {"robin": {"coefficient": 1e-18, "value": 0}}}}
    found = run(Task({**PROBLEM, "pde": singular}, {}), ADJOINT, 0, Budget())
    assert (found.status, found.points) == ("failed", ())


# The judge


def test_the_reference_is_the_optimum(judge: Judge, optimum: torch.Tensor) -> None:
    reference = judge.reference(Budget())
    assert reference.optimum == pytest.approx(judge.truth(optimum).objective, rel=1e-12)
    assert reference.initial == judge.truth(judge.start()).objective


def test_the_gap_of_a_quadratic_problem_is_the_square_of_the_error(judge: Judge, optimum: torch.Tensor) -> None:
    reference = judge.reference(Budget())
    start = judge.start()
    for share in (0.0, 0.5, 0.9, 0.999):
        truth = judge.truth(start + share * (optimum - start))
        assert reference.gap(truth.objective) == pytest.approx((1.0 - share) ** 2, rel=1e-6)
    assert judge.truth(optimum).gradient_norm < 1e-10 * judge.truth(start).gradient_norm


def test_gaps_use_the_exact_objective_and_not_that_of_a_biased_method(task: Task, judge: Judge) -> None:
    judged = judge.judge(run(task, SAMPLED.with_overrides({"outer.iterations": 3}), 0, Budget()))
    seen = [point.objective for point in judged.run.points]
    true = [truth.objective for truth in judged.truths]
    assert true[0] == pytest.approx(judge.evaluate(judge.start()).value, rel=1e-14)
    assert max(abs(a / b - 1.0) for a, b in zip(seen, true, strict=True)) > 1e-6


def test_the_lower_of_two_references_is_the_optimum() -> None:
    def judged(*values: float) -> Judged:
        finished = Trial(ADJOINT, 0, (), "stopped", "", 0.0, Counts())
        return Judged(finished, tuple(Truth(value, 0.0) for value in values))

    reference = Reference(2.0, 1.0, "reference")
    assert reference.lowered(judged(1.5, 1.0 - 1e-14, math.nan)) == reference
    lowered = reference.lowered(judged(1.5, 0.5))
    assert lowered == Reference(2.0, 0.5, "adjoint")
    assert (lowered.gap(2.0), lowered.gap(1.25), lowered.gap(0.5)) == (1.0, 0.5, 0.0)
    assert math.isnan(reference.gap(math.nan))


def test_the_error_of_the_hypergradient(judge: Judge) -> None:
    (exact,) = hypergradient_errors(judge, ADJOINT, 0, Budget())
    assert exact.error <= 1e-13
    errors = hypergradient_errors(judge, SAMPLED.with_overrides({"curvature.prior": "identity"}), 0, Budget())
    assert [error.inner_steps for error in errors[:8]] == [2**k for k in range(8)]
    assert 1e-6 < errors[-1].error < 0.5 * errors[0].error


def test_the_error_of_the_hypergradient_is_relative_in_the_dual_norm(judge: Judge) -> None:
    metric, exact = judge.problem.outer_metric, judge.evaluate(judge.start()).derivative
    assert relative_error(metric, 1.25 * exact, exact) == pytest.approx(0.25)
    unit = metric.covector(torch.eye(len(exact), dtype=exact.dtype)[:1])[0]
    expected = metric.norm(torch.eye(len(exact), dtype=exact.dtype)[:1]) / metric.dual_norm(exact[None])
    assert relative_error(metric, exact + unit, exact) == pytest.approx(expected)


def test_the_grid_search_finds_a_good_step(task: Task, judge: Judge) -> None:
    reference = judge.reference(Budget())
    tiny = ADJOINT.with_overrides({"outer.method": "gradient", "outer.step": 1e-6})
    assert has_constant_step(judge, tiny)
    assert has_constant_step(judge, Contender("soba", "soba"))
    assert not has_constant_step(judge, ADJOINT)
    budget = Budget(solves=200)
    choice = search(judge, reference, tiny, 1e-2, budget)
    solves = {}
    for factor in (1 / 3, 1.0, 3.0):
        tried = choice.contender.with_overrides({"outer.step": factor * choice.steps["outer.step"]})
        judged = judge.judge(run(task, tried, GRID_SEED, budget))
        results = ProblemResults("", "", reference, ("adjoint",), (judged,))
        solves[factor] = results.median_to("adjoint", 1e-2, lambda point: point.counts.solves)
    assert solves[1.0] == min(solves.values()) < math.inf


def automatic_step(judge: Judge) -> float:
    return judge.space.first_step(judge.evaluate(judge.start()))


def test_a_step_that_passes_the_gap_and_diverges_does_not_win() -> None:
    # A step that removes the large component of the target at once amplifies the small component of a lower mode.
    target = "sin(2*pi*x)*sin(pi*y) + 0.01*sin(pi*x)*sin(pi*y)"
    judge = Judge(Task(PROBLEM, {"objective.0.target": target}))
    reference = judge.reference(Budget())
    contender = ADJOINT.with_overrides({"outer.method": "gradient", "outer.step": 1.0})
    (step,) = search(judge, reference, contender, 0.1, Budget(solves=400)).steps.values()
    assert step < 0.5 * automatic_step(judge)
    passing = contender.with_overrides({"outer.step": automatic_step(judge), "outer.iterations": 1})
    assert reference.gap(judge.judge(run(judge.task, passing, 0, Budget())).truths[1].objective) < 0.1


def test_the_grid_search_goes_on_beyond_its_first_steps() -> None:
    # With a heavy penalty most of the objective cannot be removed, for which the automatic step is far too long.
    judge = Judge(Task(PROBLEM, {"objective.1.weight": 1.0}))
    contender = ADJOINT.with_overrides({"outer.method": "gradient", "outer.step": 1.0})
    reference = judge.reference(Budget())
    choice = search(judge, reference, contender, 1e-2, Budget(solves=400))
    assert choice.steps["outer.step"] < automatic_step(judge) / 100
    found = judge.judge(run(judge.task, choice.contender.with_overrides({"outer.iterations": 8}), 0, Budget()))
    assert reference.gap(found.truths[-1].objective) < 1e-2


# Tables and figures


def made_up(label: str, seed: int, gaps: list[float]) -> Judged:
    """A run whose true objectives are its gaps, with 10 solves and one second for each iterate."""
    v = torch.zeros(1)
    points = tuple(TrialPoint(k, float(k), k + 1, Counts(solves=10 * k), gap, v) for k, gap in enumerate(gaps))
    finished = Trial(Contender(label, label), seed, points, "budget", "", 0.0, Counts())
    return Judged(finished, tuple(Truth(gap, 0.0) for gap in gaps))


def results_of(*runs: Judged) -> ProblemResults:
    labels = tuple(dict.fromkeys(judged.run.contender.label for judged in runs))
    return ProblemResults("made_up", "1 unknown", Reference(1.0, 0.0, "reference"), labels, runs)


def test_the_table_has_medians_and_dashes() -> None:
    results = results_of(
        made_up("good", 0, [1.0, 1e-2, 1e-5, 1e-7]),
        made_up("good", 1, [1.0, 0.5, 1e-3, 1e-4]),
        made_up("good", 2, [1.0, 0.5, 0.2, 5e-3]),
        made_up("bad", 0, [1.0, math.nan]),
    )
    lines = [line for line in markdown([results], ["made by hand"]).splitlines() if line.startswith("|")]
    good, bad = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:4])
    # Solves 10, 20, 30 to 1e-2; 20, 30, never to 1e-4; 30, never, never to 1e-6.
    assert good == ["good", "20 / 30 / –", "0 / 0 / –", "2 / 3 / –", "2 / 3 / –", "3 / 2 / 1 of 3", "1.0e-04", "budget"]
    assert bad == ["bad", "– / – / –", "– / – / –", "– / – / –", "– / – / –", "0 / 0 / 0 of 1", "–", "budget"]


def test_the_median_of_two_finite_and_two_infinite_seeds_is_infinite() -> None:
    results = results_of(*(made_up("half", seed, [1.0, 1e-3 if seed < 2 else 0.5]) for seed in range(4)))
    assert results.median_to("half", 1e-2, lambda point: point.seconds) == math.inf
    assert results.share("half", 1e-2) == (2, 4)


def test_columns_of_a_table_are_aligned() -> None:
    assert table(["a", "bc"], [["1", "x|y"]]) == ["| a | bc   |", "|---|------|", "| 1 | x\\|y |"]


def test_the_csv_has_every_record() -> None:
    results = results_of(made_up("one", 4, [1.0, 0.25]))
    first, last = csv.DictReader(csv_text([results]).splitlines())
    assert (first["record"], first["problem"], first["contender"], first["seed"]) == ("run", "made_up", "one", "4")
    assert (first["status"], last["status"]) == ("", "budget")
    assert [float(row["relative_gap"]) for row in (first, last)] == [1.0, 0.25]
    assert set(Counts().as_dict()) < set(first)


def test_plots_take_the_gap_against_time_iterations_and_solves() -> None:
    drawn = {plot.ending: plot for plot in plots(results_of(made_up("one", 4, [1.0, 0.25])))}
    assert set(drawn) == {"time", "iterations", "solves"}

    def line(plot: Plot) -> list[list[float]]:
        ((x, y),) = plot.lines[0].runs
        return [x.tolist(), y.tolist()]

    assert line(drawn["solves"]) == [[0.0, 10.0], [1.0, 0.25]]
    assert line(drawn["time"]) == line(drawn["iterations"]) == [[0.0, 1.0], [1.0, 0.25]]


def test_figures_are_drawn() -> None:
    from nhgd_pde.bench.figures import pictures

    results = results_of(made_up("one", 0, [1.0, 0.25]), made_up("one", 1, [1.0, math.nan]), made_up("two", 0, [1.0]))
    drawn = pictures([results])
    assert set(drawn) == {f"made_up_{plot}.png" for plot in ("time", "iterations", "solves")}
    assert all(data.startswith(b"\x89PNG") for data in drawn.values())


# The command


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    from ruamel.yaml import YAML

    monkeypatch.chdir(tmp_path)
    with (tmp_path / "small.yaml").open("w") as file:
        YAML().dump(PROBLEM, file)
    yield lambda *arguments: CliRunner().invoke(main, ["bench", *arguments])


def test_bench_writes_tables(invoke: Callable[..., Result], tmp_path: Path) -> None:
    methods = f"nhgd,adjoint,{SAMPLED_TEXT}"
    budget = ("--budget-solves", "700", "--budget-seconds", "20")
    result = invoke("small.yaml", "--methods", methods, "--seeds", "2", *budget, "--output", "out")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "table.md").read_text()
    assert text in result.output
    assert "found by: reference" in text
    assert "2 / 2 / 2 of 2" in text
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    runs = {(row["contender"], row["seed"]) for row in rows if row["record"] == "run"}
    assert runs == {(label, seed) for label in ("nhgd", "adjoint", "sampled") for seed in "01"}
    finals = [float(row["relative_gap"]) for row in rows if row["status"] == "converged"]
    assert len(finals) == 4
    assert max(finals) < 1e-10
    figures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert figures


def test_unknown_names_end_with_exit_code_two_before_anything_runs(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke("small.yaml", "--methods", "nhgd,adjont", "--output", "out")
    assert result.exit_code == 2
    assert "--methods adjont: method: expected one of" in result.stderr
    assert "did you mean 'adjoint'" in result.stderr
    assert not (tmp_path / "out").exists()
    assert invoke("nowhere.yaml").exit_code == 2
    assert invoke().exit_code == 2
    result = invoke("small.yaml", "small.yaml")
    assert result.exit_code == 2
    assert "two problems are called 'small'" in result.stderr


def test_contradicting_options_are_refused_before_anything_runs(invoke: Callable[..., Result]) -> None:
    result = invoke("small.yaml", "--methods", "nhgd:curvature.kind=dense,inner.tests=all")
    assert result.exit_code == 2
    assert "inner.tests" in result.stderr


def test_an_interrupted_benchmark_keeps_its_finished_runs(task: Task) -> None:
    plan = Plan((ADJOINT, Contender("nhgd", "nhgd")), 2, Budget(), {})
    lines: list[str] = []
    found = list(bench(plan, {"small": task}, lambda: len(lines) > 2, lines.append))
    assert [judged.run.contender.label for judged in found[-1].runs] == ["adjoint", "nhgd"]
    assert "gap" in lines[-1]
    assert replace(found[-1], runs=()).errors == ()


def test_a_run_that_beats_the_reference_sets_the_optimum(task: Task) -> None:
    # The second question is asked by the run for the reference, which ends at the start.
    answers = iter([False, True])
    found = list(bench(Plan((ADJOINT,), 1, Budget(), {}), {"small": task}, lambda: next(answers, False)))
    assert found[0].reference == Reference(found[0].reference.initial, found[0].reference.initial, "the start")
    assert found[-1].reference.source == "adjoint"
    assert found[-1].final_gap("adjoint") == 0.0
