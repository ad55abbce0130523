"""Methods on the tasks of docs/tasks.md: `python -m benchmarks.task_rivals [seeds] [tasks]`.

NHGD has its defaults; the others have options that were chosen at seed 0 by a few trials of the outer step and the
number of outer iterations, the inner step, and the numbers of inner and linear steps (docs/tasks.md says where there
were none). The weights or images that a method has found are judged by the classifier that is trained with them to the
end, so that errors of a method's own inner variables do not count. Seconds are those of the processor. Medians, and
from the least to the largest.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

import torch

import nhgd_pde as nhgd
from nhgd_pde.tasks.measures import auroc

Options = dict[str, Any]

_PAPER: Options = {"preset": "paper", "outer.method": "adam", "curvature.lambda": 0.01}
# Of methods that take one short step after the other: T of NBO, the step of u and q, Adam's step and iterations.
_SMALL_STEPS: Options = {"hypergradient.step": 0.3, "outer.step": 0.05, "outer.iterations": 400}
CLEANING: dict[str, Options] = {
    "NHGD, factored": {},
    "NHGD, kfac": {"curvature.kind": "kfac"},
    "NHGD, paper": {**_PAPER, "inner.steps": 30},
    "truncated CG": {"method": "truncated_cg", "inner.steps": 50, "hypergradient.steps": 30},
    "Neumann": {"method": "neumann", "inner.steps": 50, "hypergradient.steps": 30},
    "NBO-CG": {"method": "nbo_cg", "outer.method": "adam"},
    "stocBiO": {"method": "stocbio", "inner.steps": 2, "hypergradient.steps": 5, "inner.step": 0.3, **_SMALL_STEPS},
    "AmIGO": {"method": "amigo", "inner.steps": 2, "hypergradient.steps": 2, "inner.step": 0.3, **_SMALL_STEPS},
    "SOBA": {"method": "soba", "inner.step": 0.3, **_SMALL_STEPS},
    "SABA": {"method": "saba", "inner.step": 0.3, **_SMALL_STEPS},
    "NSBO-SGD": {"method": "nsbo_sgd", "hypergradient.steps": 1, **_SMALL_STEPS},
    "NSBO-SAGA": {"method": "nsbo_saga", "hypergradient.steps": 1, **_SMALL_STEPS},
    "MA-NSBO-SAGA": {"method": "ma_nsbo_saga", "hypergradient.steps": 1, **_SMALL_STEPS},
}
# Two minibatches of the fifty images.
_HALVES: Options = {"inner.tests": 25, "outer.step": 0.005, "hypergradient.steps": 20}
_SINGLE: Options = {"inner.tests": 25, "outer.step": 0.002, "outer.iterations": 300}
DISTILLATION: dict[str, Options] = {
    "NHGD, factored": {},
    "NHGD, kfac": {"curvature.kind": "kfac"},
    "NHGD, paper": {**_PAPER, "inner.steps": 50, "inner.step": 0.05, "outer.step": 0.005},
    "truncated CG": {"method": "truncated_cg", "inner.steps": 100, "hypergradient.steps": 100, "outer.step": 0.02},
    "Neumann": {
        "method": "neumann",
        "inner.steps": 100,
        "hypergradient.steps": 100,
        "hypergradient.step": 0.1,
        "outer.step": 0.02,
    },
    "NBO-CG": {
        "method": "nbo_cg",
        "outer.method": "adam",
        "inner.steps": 2,
        "hypergradient.steps": 30,
        "outer.step": 0.02,
    },
    "stocBiO": {"method": "stocbio", "inner.steps": 20, **_HALVES},
    "AmIGO": {"method": "amigo", "inner.steps": 20, **_HALVES},
    "SOBA": {"method": "soba", **_SINGLE},
    "SABA": {"method": "saba", **_SINGLE},
    "NSBO-SGD": {"method": "nsbo_sgd", **_HALVES},
    "NSBO-SAGA": {"method": "nsbo_saga", **_HALVES},
    "MA-NSBO-SAGA": {"method": "ma_nsbo_saga", **_HALVES},
}
TASKS = {"cleaning": CLEANING, "distillation": DISTILLATION}


def judged(task: str, options: Options, seed: int) -> dict[str, float]:
    """The measures of one run."""
    problem: Any = nhgd.load(f"problems/digits_{task}.yaml", {"seed": seed, **options})
    start = time.process_time()
    solution = nhgd.solve(problem)
    found = {"seconds": time.process_time() - start}
    bilevel, split = problem.bilevel, problem.split
    v = torch.from_numpy(solution.control)
    u = bilevel.trained(v)
    found["loss"], found["accuracy"] = bilevel.outer_value(u, v), bilevel.accuracy(u, split.test)
    if task == "cleaning":
        found["auroc"] = auroc(v, ~split.wrong)
    return found


def band(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main(seeds: int, tasks: list[str]) -> None:
    for task in tasks:
        names = ["seconds", "loss", *(["auroc"] if task == "cleaning" else []), "accuracy"]
        print(f"\n| {task} | {' | '.join(names)} |\n|---{'|---' * len(names)}|", flush=True)
        for name, options in TASKS[task].items():
            rows = [judged(task, options, seed) for seed in range(seeds)]
            cells = [band([row[each] for row in rows], 1 if each == "seconds" else 3) for each in names]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:] or [*TASKS])
