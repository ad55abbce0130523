"""The figures of docs/tasks.md: `python -m benchmarks.tasks [seeds]`.

Data cleaning of digits by NHGD and by truncated conjugate gradients, with the same 60 steps of Adam: how well the
weights tell right labels from wrong ones, the validation loss and the seconds, as ratios in one run. Then the estimator
A grad_u f without refinement from scores of both kinds, and data distillation.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.hypergradient import hypergradient
from nhgd_pde.tasks.classification import Classification, Examples

CLEANING, DISTILLATION = (f"problems/digits_{name}.yaml" for name in ("cleaning", "distillation"))
# Scores in units of the number of parameters.
_SCORES_PER_PARAMETER = 10


def estimate(problem: Classification, wrong: torch.Tensor, scores: str, seed: int) -> tuple[float, float]:
    """Cosine and relative error of the hypergradient by A grad_u f, at weights that know the wrong labels a little."""
    sampled = replace(problem, scores=scores)  # type: ignore[arg-type]
    v = torch.where(wrong, -0.5, 0.5).double()
    u = problem.trained(v)
    exact = -problem.cross_product(u, v, problem.fisher_factors(u, v).solve(problem.outer_derivatives(u, v)[0]))
    backend, generator = Dense("identity", prior_weight=1.0), torch.Generator().manual_seed(seed)
    state = backend.init(sampled, u, v)
    for _ in range(_SCORES_PER_PARAMETER * u.shape[1] // 50):
        state = backend.absorb(state, sampled.batch(u, v, sampled.sample(50, generator)).scores)
    found = hypergradient(sampled, u, v, state, None, None).derivative
    cosine = float(found @ exact / (found.norm() * exact.norm()))
    return cosine, float((found - exact).norm() / exact.norm())


def cleaning(seed: int) -> dict[str, float]:
    """The figures of one seed."""
    found: dict[str, float] = {}
    runs: dict[str, Any] = {
        method: nhgd.solve(nhgd.load(CLEANING, {"seed": seed, "method": method})) for method in ("nhgd", "truncated_cg")
    }
    ours, theirs = runs["nhgd"], runs["truncated_cg"]
    found["auroc"] = ours.stats["measures"]["auroc"]
    found["auroc of truncated_cg"] = theirs.stats["measures"]["auroc"]
    found["loss / loss of truncated_cg"] = ours.objective / theirs.objective
    found["seconds / seconds of truncated_cg"] = ours.stats["seconds"] / theirs.stats["seconds"]
    problem: Any = nhgd.load(CLEANING, {"seed": seed})
    for scores in ("model", "observed"):
        found[f"cosine, {scores}"], found[f"error, {scores}"] = estimate(
            problem.bilevel, problem.split.wrong, scores, seed
        )
    return found


@dataclass(frozen=True)
class AllImages:
    """A training set that does not depend on the outer variables."""

    examples: Examples
    start: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def at(self, v: torch.Tensor) -> Examples:
        return self.examples


def of_all_images(seed: int) -> float:
    """The accuracy of the classifier that is trained on all training images, with the same ridge."""
    loaded: Any = nhgd.load(DISTILLATION, {"seed": seed})
    training, ridge = loaded.split.training, loaded.task.ridge
    problem = Classification.of(loaded.bilevel.classifier, AllImages(training), training, ridge)
    return problem.accuracy(problem.trained(problem.first[1]), loaded.split.test)


def main(seeds: int) -> None:
    rows = [cleaning(seed) for seed in range(seeds)]
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name:<36} median {median(values):.4g}   from {min(values):.4g} to {max(values):.4g}", flush=True)
    images: list[dict[str, float]] = []
    for seed in range(seeds):
        measures: Any = nhgd.solve(nhgd.load(DISTILLATION, {"seed": seed})).stats["measures"]
        images.append({**measures, "of all images": of_all_images(seed)})
    for name in images[0]:
        values = [each[name] for each in images]
        print(f"distillation, {name:<22} median {median(values):.4g}   from {min(values):.4g} to {max(values):.4g}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
