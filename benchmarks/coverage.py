"""The coverage of bounds of sampling errors and of intervals.

    python -m benchmarks.coverage [bounds] [intervals] [--seeds 40]

Bounds: runs with loose goals over independent scenarios of a log-normal conductivity on 8 x 8 cells. The output has
the number of runs that end on a part of the scenarios, and of those whose `gradient_error` holds; the same numbers for
the bounds from fresh scenarios on the way; and the number of runs that are falsely `converged`, which means that the
gradient over all scenarios of the sample exceeds the goal. Intervals: for the mean of (1 - c exp(-sigma z))^2, the
misfit of the random scalar case, where z is one normal variable or a combination of ten. The exit code is 1 if less
than 90 % hold, or if a run is falsely `converged`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.loop import Minimum
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.reduced_objective import Evaluation
from nhgd_pde.engine.scenarios.growth import GrowthOptions
from nhgd_pde.engine.scenarios.scenario_nhgd import ScenarioNHGD
from nhgd_pde.run.judging import fitted
from nhgd_pde.uncertainty.direction import main_direction
from nhgd_pde.uncertainty.distributions import Normal
from nhgd_pde.uncertainty.estimation import expectation
from nhgd_pde.uncertainty.fresh import FreshSample, fresh_sample
from nhgd_pde.uncertainty.inputs import RandomInputs, Scalar
from nhgd_pde.uncertainty.sampling import Stream

# Number of scenarios, number of modes (0 is one random number), deviation of the logarithm, rtol.
BOUNDS = (
    (512, 0, 0.5, 0.1),
    (512, 0, 1.0, 0.3),
    (512, 0, 1.5, 0.3),
    (512, 10, 0.5, 0.1),
    (512, 10, 1.0, 0.3),
    (512, 10, 1.5, 0.3),
    (256, 3, 1.0, 0.2),
)
# Number of scenarios of the sample from which the direction is found.
PILOTS = 128


def case(seed: int, std: float, rtol: float, count: int = 512, modes: int = 10, risk: Any = "mean") -> dict[str, Any]:
    """Independent scenarios of a log-normal conductivity; `modes` 0 is one random number."""
    matern = {"covariance": "matern", "length": 0.3, "std": std, "smoothness": 1.5, "modes": modes}
    return {
        "name": "loose",
        "mesh": {"kind": "rectangle", "cells": [8, 8]},
        "parameters": {"k": {"field": matern} if modes else {"normal": [0, std]}},
        "pde": {"kind": "poisson", "conductivity": "exp(k)", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [
            {"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)*(1+x)"},
            {"kind": "regularisation", "norm": "l2", "weight": 1e-4},
        ],
        "risk": risk,
        "scenarios": {"count": count, "sampling": "monte_carlo", "validation": 0},
        "outer": {"rtol": rtol},
        "seed": seed,
    }


@dataclass
class Watched:
    """An oracle that keeps the evaluations with a bound from fresh scenarios."""

    oracle: Any
    seen: list[Evaluation] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.oracle.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.oracle, name)

    def init(self, problem: Any, u: Tensor, v: Tensor) -> Any:
        return self.oracle.init(problem, u, v)

    def evaluate(self, problem: Any, v: Tensor, state: Any, accuracy: Accuracy) -> Any:
        found = self.oracle.evaluate(problem, v, state, accuracy)
        if found[0].validated and found[0].sampling_error > 0.0:
            self.seen.append(found[0])
        return found


@dataclass(frozen=True)
class Loose:
    """A run, compared with all scenarios.

    Attributes:
        found: the run.
        goal: norm of the gradient at which the run may end.
        true: norm of the gradient over all scenarios at the reported control.
        off: norm of the error of the reported gradient.
        part: the run ended on a part of the scenarios.
        bounds: (error, bound) of the evaluations on the way that have a bound.
    """

    found: Minimum
    goal: float
    true: float
    off: float
    part: bool
    bounds: list[tuple[float, float]]

    @property
    def holds(self) -> bool:
        return self.off <= self.found.last.evaluation.gradient_error

    @property
    def false(self) -> bool:
        return self.found.status == "converged" and self.true > self.goal


def loose(data: dict[str, Any], watched: bool = False) -> Loose:
    """Solves a problem; with `watched` also with the true errors of all bounds on the way, which takes longer."""
    loaded = nhgd.load(data)
    assert loaded.scenarios is not None
    problem, method = fitted(loaded.scenarios.problem), loaded.method
    oracle = Watched(method.oracle)
    found = minimise(problem, oracle, method.outer, method.stopping)
    every, length = ScenarioNHGD(method.oracle.base, GrowthOptions(None)), problem.outer_metric.dual_norm

    def told(evaluation: Evaluation) -> tuple[float, float]:
        v = evaluation.v
        whole, _ = every.evaluate(problem, v, every.init(problem, problem.start()[0], v), Accuracy(1e-9, 1e-9))
        return length(whole.derivative[None]), length((whole.derivative - evaluation.derivative)[None])

    last = found.last.evaluation
    true, off = told(last)
    bounds = [(told(each)[1], each.gradient_error) for each in oracle.seen] if watched else []
    goal = method.stopping.rtol * found.first.gradient_norm
    return Loose(found, goal, true, off, last.left_out > 0.0, bounds)


def misfit(sigma: float) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """(1 - c exp(-sigma z))^2 for the optimal c of the random scalar case (alpha = 1e-3), and its expectation."""
    first = 2.0 * math.pi**2
    c = math.exp(sigma**2 / 2) / first / (1e-3 + math.exp(2 * sigma**2) / first**2) / first
    mean = 1.0 - 2.0 * c * math.exp(sigma**2 / 2) + c**2 * math.exp(2 * sigma**2)
    return lambda z: (1.0 - c * np.exp(-sigma * z)) ** 2, mean


def combination(dimension: int) -> np.ndarray:
    """(m,) weights of length one, where each variable is less important than the one before."""
    weights = 1.0 / np.arange(1, dimension + 1)
    return np.asarray(weights / np.linalg.norm(weights))


def judging(sigma: float, dimension: int, count: int, seed: int, pilots: int = PILOTS) -> FreshSample:
    """Fresh scenarios as in a run, along the main direction of the values in its sample."""
    stream = Stream(RandomInputs({f"z{k}": Scalar(Normal()) for k in range(dimension)}), seed)
    direction = None
    if pilots:
        z = stream.draw(pilots).z
        f, _ = misfit(sigma)
        direction = main_direction(z, f(z @ combination(dimension)), stream.inputs.distributions)
    return fresh_sample(stream.fresh, count, True, direction)


def interval_holds(sigma: float, dimension: int, count: int, seed: int, pilots: int = PILOTS) -> tuple[bool, float]:
    """Whether the interval holds the expectation, and its half width relative to the expectation."""
    sample = judging(sigma, dimension, count, seed, pilots)
    f, truth = misfit(sigma)
    low, high = expectation(f(sample.z @ combination(dimension)), sample, 0.95).interval
    return low <= truth <= high, 0.5 * (high - low) / truth


def bounds(seeds: int) -> bool:
    print("| scenarios, modes | log-deviation | rtol | ended on a part | bound holds | bounds on the way | falsely |")
    print("|---|---|---|---|---|---|---|", flush=True)
    good = True
    for count, modes, std, rtol in BOUNDS:
        runs = [loose(case(seed, std, rtol, count, modes), watched=True) for seed in range(seeds)]
        ends = [run for run in runs if run.part]
        way = [off <= bound for run in runs for off, bound in run.bounds]
        held, wrong = sum(run.holds for run in ends), sum(run.false for run in runs)
        named = f"{count}, {modes or 'one number'}"
        print(
            f"| {named} | {std} | {rtol} | {len(ends)} | {held} | {len(way)}, {np.mean(way):.1%} | {wrong} |",
            flush=True,
        )
        good &= held >= 0.9 * len(ends) and wrong == 0
    return good


def intervals(seeds: int) -> bool:
    print(
        "| variables, fresh scenarios | sigma | intervals hold | half width | without a direction, hold | half width |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    good = True
    for dimension in (1, 10):
        for count in (100, 256, 1000):
            for sigma in (0.3, 0.5, 1.0):
                shares = []
                for pilots in (PILOTS, 0):
                    found = [interval_holds(sigma, dimension, count, seed, pilots) for seed in range(seeds)]
                    shares += [
                        float(np.mean([held for held, _ in found])),
                        float(np.median([half for _, half in found])),
                    ]
                told = f"{shares[0]:.1%} | {shares[1]:.0e} | {shares[2]:.1%} | {shares[3]:.0e}"
                print(f"| {dimension}, {count} | {sigma} | {told} |", flush=True)
                good &= shares[0] >= 0.9
    return good


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=["bounds", "intervals"], default=["bounds", "intervals"])
    parser.add_argument("--seeds", type=int, default=40)
    given = parser.parse_args()
    parts = {"bounds": bounds, "intervals": intervals}
    return 0 if all([parts[name](given.seeds) for name in given.parts]) else 1


if __name__ == "__main__":
    sys.exit(main())
