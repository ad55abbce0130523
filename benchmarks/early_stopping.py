"""How long to tune the weights of data cleaning: `python -m benchmarks.early_stopping [seeds] [iterations] [ridge]`.

The outer loop of problems/digits_cleaning.yaml goes on to the optimum of the validation loss, first with all 400
validation examples, then with 300 of them while the loss of the other 100 is watched. After some numbers of steps, and
where the watched loss was smallest: how well the weights tell right labels from wrong ones, and the accuracy on the
test examples. Beside it, what the classifier does without any cleaning, with the rightly labelled examples alone, and
with the validation examples alone.
"""

from __future__ import annotations

import sys
from statistics import median
from typing import Any

import torch

import nhgd_pde as nhgd
from nhgd_pde.engine.loop import Iterate
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.tasks.classification import Classification, Examples
from nhgd_pde.tasks.measures import auroc
from nhgd_pde.tasks.training_sets import WeightedExamples

MARKS = (60, 200, 600, 2000)
_WATCHED = 100
# Weights of one and of zero.
_ALL = 40.0


def loaded(seed: int, iterations: int, ridge: float, method: str = "adam") -> Any:
    outer = {"outer.method": method, "outer.iterations": iterations}
    return nhgd.load(
        "problems/digits_cleaning.yaml", {"seed": seed, "curvature.kind": "kfac", "task.ridge": ridge, **outer}
    )


def with_training(problem: Any, examples: Examples) -> float:
    """The accuracy on the test examples of the classifier that is trained with equal weights of one."""
    bilevel = problem.bilevel
    made = Classification.of(bilevel.classifier, WeightedExamples(examples), bilevel.validation, bilevel.ridge)
    v = torch.full((len(examples),), _ALL, dtype=torch.float64)
    return made.accuracy(made.trained(v), problem.split.test)


def baselines(problem: Any) -> dict[str, float]:
    split = problem.split
    return {
        "accuracy without cleaning": with_training(problem, split.training),
        "accuracy, right labels alone": with_training(
            problem, split.training.subset(torch.nonzero(~split.wrong)[:, 0])
        ),
        "accuracy, validation examples alone": with_training(problem, split.validation),
    }


def course(problem: Any, watched: int) -> dict[str, float]:
    """The measures along one run, with some of the validation examples watched in place of used."""
    bilevel, split = problem.bilevel, problem.split
    used = torch.arange(len(split.validation) - watched)
    held = split.validation.subset(torch.arange(len(used), len(split.validation)))
    tuned = Classification.of(bilevel.classifier, bilevel.training, split.validation.subset(used), bilevel.ridge)
    judge = Classification.of(bilevel.classifier, bilevel.training, held, bilevel.ridge) if watched else None
    found, best = {}, [float("inf"), 0.0, 0.0, 0.0]

    def seen(iterate: Iterate) -> None:
        u, v = iterate.oracle.u, iterate.evaluation.v
        if judge is not None and (loss := judge.outer_value(u, v)) < best[0]:
            best[:] = loss, iterate.iteration, auroc(v, ~split.wrong), bilevel.accuracy(u, split.test)
        if iterate.iteration in MARKS:
            found[f"auroc, {iterate.iteration}"] = auroc(v, ~split.wrong)
            found[f"accuracy, {iterate.iteration}"] = bilevel.accuracy(u, split.test)
            found[f"loss, {iterate.iteration}"] = iterate.evaluation.value

    method = problem.method
    minimise(tuned, method.oracle, method.outer, method.stopping, seen)
    if judge is not None:
        found |= dict(zip(("steps, best", "auroc, best", "accuracy, best"), best[1:], strict=True))
    return found


def optimum(seed: int, ridge: float) -> dict[str, float]:
    """The measures of the weights to which L-BFGS converges."""
    solution = nhgd.solve(loaded(seed, 1000, ridge, "lbfgs"))
    measures: Any = solution.stats["measures"]
    return {
        "converged": float(solution.status == "converged"),
        "steps": float(len(solution.history) - 1),
        "loss": solution.objective,
        "auroc": measures["auroc"],
        "accuracy": measures["test_accuracy"],
    }


def main(seeds: int, iterations: int, ridge: float) -> None:
    problems = [loaded(seed, iterations, ridge) for seed in range(seeds)]
    parts = {
        "": [baselines(problem) for problem in problems],
        "optimum by lbfgs: ": [optimum(seed, ridge) for seed in range(seeds)],
        "all validation examples: ": [course(problem, 0) for problem in problems],
        f"{_WATCHED} of them watched: ": [course(problem, _WATCHED) for problem in problems],
    }
    for title, rows in parts.items():
        for name in rows[0]:
            values = [row[name] for row in rows]
            print(f"{title}{name:<36} median {median(values):.4g}   from {min(values):.4g} to {max(values):.4g}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    seeds, iterations, ridge = [*sys.argv[1:], *["5", "600", "0.01"][len(sys.argv) - 1 :]]
    main(int(seeds), int(iterations), float(ridge))
