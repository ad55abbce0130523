"""The rates of Theorems 4.7 and 4.10 of arXiv 2602.10905, by experiment.

`python -m benchmarks.theory [quick] [PART ...]`; the parts are one_loop, restarts, convex, nonconvex and equation.

The problem is `benchmarks.regression`, which satisfies the assumptions, and the method is that of `preset: paper`:
single observed samples, SGD with eta_t = 4 / (mu (t + 8 L^2 / mu^2)), an inverse that starts from 1/lambda I and is
renewed by rank-one updates, q = A grad_u f, the running mean of the cross derivatives, a constant outer step.

All errors are mean squares over independent runs, relative to the square of the exact quantity. Slopes are weighted
least-squares fits of their logarithms, with standard errors from the spread of the runs. The exit code is 1 if a slope
is not within the band that the theorems and the sampling error allow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

import nhgd_pde as nhgd
from benchmarks.regression import Regression, Scores
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.inner_loop import InnerOptions, InnerState, solve_inner
from nhgd_pde.engine.loop import Iterate, Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.gradient import GradientDescent

# A tolerance that no inner loop reaches, so that each takes all of its steps.
_NEVER = 1e-300
# Slopes are accepted up to this distance from those of the theorems, besides twice their standard errors.
_BAND = 0.15
QUANTITIES = ("inner", "inverse", "hypergradient")


def paper(
    steps: int, restart: bool = True, forgetting: float | None = None, schedule: float | Literal["paper"] = "paper"
) -> NHGD:
    """The method of `preset: paper` with a number of inner steps, or with a constant weight `forgetting` or step."""
    return NHGD(
        InnerOptions(
            tests=1,
            steps=steps,
            tolerance=_NEVER,
            optimiser="sgd",
            metric="identity",
            schedule=schedule,
            keep_cross=True,
        ),
        Dense("identity", prior_weight=1.0, regularisation=1.0, forgetting=forgetting),
        HypergradientOptions(refine=False, debias=False, cross="running"),
        restart=restart,
    )


@dataclass(frozen=True)
class Slope:
    """A fitted slope with its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.2f} +- {self.error:.2f}"

    def near(self, expected: float) -> bool:
        return abs(self.value - expected) <= _BAND + 2.0 * self.error

    def at_most(self, expected: float) -> bool:
        return self.value <= expected + _BAND + 2.0 * self.error


def fitted(x: Sequence[float], samples: Sequence[Sequence[float]]) -> Slope:
    """The slope of log mean(samples) over log x, from several positive samples at every x.

    The relative variance of the samples is taken to be the same at every x; that of their mean, and about that of its
    logarithm, is this over their number.
    """
    means, numbers = np.array([np.mean(each) for each in samples]), np.array([len(each) for each in samples])
    relative = sum(float(np.var(each)) * len(each) / np.mean(each) ** 2 for each in samples) / (numbers - 1).sum()
    weights, at, y = numbers / relative, np.log(x), np.log(means)
    middle = float(weights @ at / weights.sum())
    square = float(weights @ (at - middle) ** 2)
    return Slope(float(weights @ ((at - middle) * y)) / square, 1.0 / square**0.5)


def squares(problem: Regression, method: NHGD, v: Tensor, seed: int, warm: bool = False) -> tuple[float, ...]:
    """The squared errors of u, A and the hypergradient after one inner loop from the start, or from u*(v)."""
    method = replace(method, seed=seed)
    u = problem.solution(v) if warm else problem.start()[0]
    found, after = method.evaluate(problem, v, method.init(problem, u, v), Accuracy(1e-8, 1e-8))
    pairs = (
        (after.u, problem.solution(v)),
        (after.inner.curvature.inverse, problem.inverse(v)),  # type: ignore[attr-defined]
        (found.derivative, problem.exact(v)),
    )
    return tuple(float((a - b).square().sum() / b.square().sum()) for a, b in pairs)


def point(problem: Regression) -> Tensor:
    """A control away from the start and from the optimum."""
    return torch.full_like(problem.start()[1], 0.5)


def offset(problem: Regression) -> float:
    """8 L^2 / mu^2 of single samples, which the theorem adds to t."""
    return 8.0 * float(problem.smoothness.max()) / float(problem.variances.min()) ** 2


Errors = dict[str, list[list[float]]]


def errors(
    problem: Regression, method: Callable[[int], NHGD], counts: Sequence[int], runs: Sequence[int], warm: bool = False
) -> Errors:
    """For each quantity the squared errors of independent runs with every number of inner steps."""
    v = point(problem)
    found: Errors = {name: [] for name in QUANTITIES}
    for row, (count, number) in enumerate(zip(counts, runs, strict=False)):
        rows = [squares(problem, method(count), v, 1000 * row + seed, warm) for seed in range(number)]
        for name, values in zip(QUANTITIES, zip(*rows, strict=True), strict=True):
            found[name].append(list(values))
    return found


@dataclass(frozen=True)
class OuterRun:
    """What a run of the outer loop did, at every iterate.

    Attributes:
        gaps: Phi(v) - Phi(v*), where Phi is convex; else Phi(v).
        gradients: |grad Phi(v)|^2, exact.
        inverses: the squared relative error of A.
    """

    gaps: np.ndarray
    gradients: np.ndarray
    inverses: np.ndarray


def outer_run(problem: Regression, method: NHGD, iterations: int, seed: int = 0) -> OuterRun:
    """Gradient steps of constant length along the hypergradient, from v = 0."""
    rows: list[tuple[float, float, float]] = []
    best = problem.reduced(problem.optimum) if problem.convex else 0.0

    def told(iterate: Iterate) -> None:
        v, state = iterate.evaluation.v, iterate.oracle
        exact = problem.inverse(v)
        inverse = state.inner.curvature.inverse  # type: ignore[attr-defined]
        error = float((inverse - exact).square().sum() / exact.square().sum())
        rows.append((problem.reduced(v) - best, float(problem.exact(v).square().sum()), error))

    stopping = Stopping(iterations=iterations, rtol=1e-14, certificate=_NEVER)
    minimise(problem, replace(method, seed=seed), GradientDescent(step=longest_step(problem)), stopping, told)
    gaps, gradients, inverses = np.array(rows).T
    return OuterRun(gaps, gradients, inverses)


def longest_step(problem: Regression) -> float:
    """1 / L, L a bound of the Hessian of Phi: c B^T B + w I with c = 1 of r^2 / 2, and c = 2 of r^2 / (1 + r^2)."""
    curvature = float(torch.linalg.matrix_norm(problem.slope, 2)) ** 2
    return 1.0 / ((1.0 if problem.convex else 2.0) * curvature + problem.weight)


def exact_gaps(problem: Regression, iterations: int) -> list[float]:
    """The gaps of a convex Phi along the same steps with exact gradients."""
    v, found, best = problem.start()[1], [], problem.reduced(problem.optimum)
    for _ in range(iterations):
        found.append(problem.reduced(v) - best)
        v = v - longest_step(problem) * problem.exact(v)
    return found


def print_rows(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def one_loop(quick: bool) -> bool:
    """Theorem 4.7: errors after one loop, as in the theorem, and with one thing changed."""
    counts, runs = ([500, 1500], [6, 4]) if quick else ([1000, 3000, 9000, 27000], [24, 12, 6, 4])
    few = max(2, len(counts) - 1)
    observed, model = Regression.of(8, 4), Regression.of(8, 4, scores="model")
    cases: dict[str, tuple[Regression, Callable[[int], NHGD], bool, int]] = {
        "from u = 0": (observed, paper, False, len(counts)),
        "from u*": (observed, paper, True, len(counts)),
        "from u = 0, `model` scores": (model, paper, False, few),
        "weight 0.01 of the newest score": (observed, lambda t: paper(t, forgetting=0.01), False, few),
        "step 0.02": (observed, lambda t: paper(t, schedule=0.02), False, few),
    }
    rows, good = [], True
    for name, (problem, method, warm, number) in cases.items():
        # Cases beside those of the theorem have half as many runs, and none of the longest.
        found = errors(
            problem, method, counts[:number], runs if number == len(counts) else [n // 2 for n in runs], warm
        )
        for quantity in QUANTITIES:
            shift = offset(problem) if quantity == "inner" else 0.0
            slope = fitted([count + shift for count in counts[:number]], found[quantity])
            means = [f"{np.mean(each):.1e}" for each in found[quantity]]
            rows.append([name, quantity, *means, *[""] * (len(counts) - number), str(slope)])
            good &= slope.at_most(-1.0) or name.startswith(("weight", "step"))
            good &= slope.near(-1.0) or not warm
    heads = ["", "squared error of", *(f"t = {count:,}" for count in counts), "slope"]
    print_rows(f"One inner loop of t steps; inner errors are fitted in t + {offset(observed):.0f}", heads, rows)
    return good


def restarts(quick: bool) -> bool:
    """The inverse over outer iterations, started anew in each or carried over."""
    iterations, steps, seeds = (6, 100, 2) if quick else (40, 200, 3)
    at = [k for k in (1, 2, 5, 10, 20, 40) if k <= iterations]
    rows, good = [], True
    cases: tuple[tuple[float, Scores], ...] = ((0.0, "observed"), (1.0, "observed"), (0.0, "model"))
    for stretch, scores in cases:
        problem = Regression.of(8, 4, stretch=stretch, scores=scores)
        for restart in (True, False):
            runs = [outer_run(problem, paper(steps, restart), iterations, seed).inverses for seed in range(seeds)]
            slope = fitted(at[1:], [[run[k - 1] for run in runs] for k in at[1:]])
            means = np.mean(runs, axis=0)
            name = "outer" if restart else "never"
            rows.append([f"{stretch:g}", scores, name, *(f"{means[k - 1]:.1e}" for k in at), str(slope)])
            good &= quick or (slope.near(0.0) if restart else slope.at_most(-0.8 if scores == "observed" else -1.0))
    heads = ["stretch", "scores", "restart", *(f"k = {k}" for k in at), "slope from k = 2"]
    print_rows(f"Squared error of A in outer iteration k, {steps} inner steps each", heads, rows)
    return good


def convex(quick: bool) -> bool:
    """Theorem 4.10 for a strongly convex Phi: linear convergence to a floor that falls with the inner steps."""
    counts, iterations, seeds = ([50, 200], 10, 2) if quick else ([100, 400, 1600], 24, 2)
    problem, rows = Regression.of(8, 4), []
    floors: dict[bool, list[list[float]]] = {True: [], False: []}
    exact = exact_gaps(problem, iterations + 1)
    for count in counts:
        row = [f"{count:,}"]
        for restart in (True, False):
            runs = [outer_run(problem, paper(count, restart), iterations, seed) for seed in range(seeds)]
            factor = np.mean([(run.gaps[5] / run.gaps[1]) ** 0.25 for run in runs])
            floors[restart].append([run.gradients[iterations // 2 :].mean() / run.gradients[0] for run in runs])
            row += [f"{factor:.3f}", f"{np.mean(floors[restart][-1]):.1e}"]
        rows.append(row)
    heads = ["t", "outer: factor", "outer: floor", "never: factor", "never: floor"]
    title = (
        "Strongly convex Phi: factor of the gap in iterations 1 to 5, and floor of |grad Phi|^2 relative to the start"
    )
    print_rows(title, heads, rows)
    print(f"\nwith exact gradients the factor is {(exact[5] / exact[1]) ** 0.25:.3f}")
    slopes = {restart: fitted([float(count) for count in counts], floors[restart]) for restart in floors}
    print(f"slopes of the floor in t: outer {slopes[True]}, never {slopes[False]}")
    return quick or slopes[True].near(-1.0)


def nonconvex(quick: bool) -> bool:
    """Theorem 4.10 for a Phi that is not convex: the mean of the squared gradients falls as 1 / K to a floor."""
    counts, iterations, seeds = ([50], 12, 2) if quick else ([100, 600], 60, 2)
    problem = Regression.of(8, 4, convex=False, weight=0.01, stretch=0.5)
    at, rows, good = [k for k in (1, 3, 10, 20, 30, 60) if k <= iterations], [], True
    for count in counts:
        for restart in (True, False):
            runs = [outer_run(problem, paper(count, restart), iterations, seed).gradients for seed in range(seeds)]
            means = np.mean(runs, axis=0)
            floor = means[3 * len(means) // 4 :].mean()
            sums = np.cumsum(means) / np.arange(1, len(means) + 1)
            above = [sums[k - 1] - floor for k in at]
            slope = np.log(above[-1] / above[-3]) / np.log(at[-1] / at[-3])
            name = "outer" if restart else "never"
            rows.append([f"{count:,}", name, *(f"{sums[k - 1]:.2e}" for k in at), f"{floor:.1e}", f"{slope:.2f}"])
            good &= quick or bool(slope < -1.0 + _BAND)
    heads = ["t", "restart", *(f"K = {k}" for k in at), "floor", "slope above the floor"]
    print_rows("Not convex: mean of |grad Phi(v_k)|^2 over the first K iterates", heads, rows)
    return good


def equation(quick: bool) -> bool:
    """The inverse of the shipped problem, whose noise follows the residual, and with a fixed noise."""
    counts, runs = ([10, 40], 2) if quick else ([25, 100, 400, 1600], 2)
    rows, good = [], True
    for noise in (1.0, "matched"):
        problem = nhgd.load("problems/poisson_nhgd_paper.yaml", {"inner.noise": noise}).pde
        u, v = problem.start()
        v = v + 1.0
        d = u.numel()
        hessian = torch.cat([problem.hessian_product(u, v, row[None]) for row in torch.eye(d, dtype=u.dtype)])
        exact, found = torch.linalg.inv(hessian), []
        backend = Dense("identity", prior_weight=1.0, regularisation=0.004)
        for count in counts:
            options = InnerOptions(tests=256, steps=count, optimiser="sgd", metric="identity")
            values = []
            for seed in range(runs):
                generator = torch.Generator().manual_seed(seed + 100 * count)
                start = InnerState(u, backend.init(problem, u, v))
                inverse = solve_inner(problem, v, start, backend, options, _NEVER, generator).state.curvature.inverse
                values.append(float((inverse - exact).square().sum() / exact.square().sum()))
            found.append(values)
        slope = fitted([float(count) for count in counts], found)
        rows.append([str(noise), *(f"{np.mean(each):.1e}" for each in found), str(slope)])
        good &= quick or noise == "matched" or slope.at_most(-1.0)
    heads = ["noise", *(f"t = {count:,}" for count in counts), "slope"]
    print_rows(f"Squared error of A, poisson_nhgd_paper, {d} unknowns, 256 scores a step", heads, rows)
    return good


PARTS = {part.__name__: part for part in (one_loop, restarts, convex, nonconvex, equation)}


def main() -> int:
    torch.set_num_threads(1)
    words = sys.argv[1:]
    parts = [part for name, part in PARTS.items() if name in words] or list(PARTS.values())
    return 0 if all([part("quick" in words) for part in parts]) else 1


if __name__ == "__main__":
    sys.exit(main())
