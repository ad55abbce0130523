"""Time to a gap of the objective over the scenarios of a sample: growing batches compared with other methods.

    python -m benchmarks.uncertainty [FILE] [--repeats 3] [--set key=value ...] [--methods NAME;...]

Every method minimises the same sample average from the same start, in one process, one after the other, repeated in
turns, and each time from a new problem. The time includes the factorisation of the nominal scenario and the building of
a coarser mesh, but not the recording. A control counts from the end of its evaluation; of long runs about forty records
are used. Solves on a coarser mesh are printed after a plus. Gaps are those of the objective over the whole sample,
relative to the optimum, which conjugate gradients find with many more digits:

    Phi(v) - Phi(v*) = mean_s |S_s (v - v*)|^2 / 2 + weight |v - v*|^2 / 2     (quadratic problems only)
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.outer.base import OuterMethod
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.stochastic import StochasticApproximation
from nhgd_pde.engine.scenarios.growth import GrowthOptions
from nhgd_pde.linalg.conjugate_gradients import batched_conjugate_gradients
from nhgd_pde.methods.robbins_monro import RobbinsMonro
from nhgd_pde.methods.sample_average import SampleAverage
from nhgd_pde.problem import Problem
from nhgd_pde.problem_file.loading import parse_override
from nhgd_pde.scenario_problem import ScenarioProblem

_FILE = "problems/robust_poisson_3d.yaml"
GAPS = (1e-2, 1e-3, 1e-4)


@dataclass
class Clocked:
    """An oracle that records its evaluations: seconds, solves, control."""

    oracle: Any
    limit: float
    seconds: float = 0.0
    seen: list[tuple[float, int, int, Tensor]] = field(default_factory=list)
    done: bool = False
    _since: float = 0.0

    @property
    def name(self) -> str:
        return str(self.oracle.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.oracle, name)

    def start(self) -> None:
        self._since = time.perf_counter()

    def init(self, problem: Any, u: Tensor, v: Tensor) -> Any:
        return self.oracle.init(problem, u, v)

    def evaluate(self, problem: Any, v: Tensor, state: Any, accuracy: Any) -> Any:
        found = self.oracle.evaluate(problem, v, state, accuracy)
        self.seconds += time.perf_counter() - self._since
        self.seen.append((self.seconds, problem.counts.solves, problem.counts.coarse_solves, v.clone()))
        self.done = self.seconds > self.limit
        self._since = time.perf_counter()
        return found


def optimum(problem: Problem) -> tuple[Tensor, float]:
    """v* and the objective there, with far more digits than the gaps."""
    target = problem.stages[-1]
    found = minimise(target, problem.method.oracle, problem.method.outer, Stopping(iterations=60, rtol=1e-8))
    return found.last.evaluation.v, found.last.evaluation.value


def gap(problem: ScenarioProblem, v: Tensor, best: Tensor) -> float:
    """Phi(v) - Phi(best) of a quadratic problem whose optimum is `best`."""
    step, nominal, total = v - best, problem.nominal, 0.0
    count = len(problem.z)
    for indices in torch.split(torch.arange(count), problem.at_once):
        part = problem.part(indices)
        equation = part.equation
        right = -equation.constant_linearisation.control.mv(step)
        moved = batched_conjugate_gradients(
            equation.constant_linearisation.state.mv, right, nominal.inner_metric.gradient, atol=lambda r: 3e-2 * r
        ).solution
        full = equation.extend(moved, torch.zeros_like(step), step)
        curved = part.objective.second_derivatives(full, step, full, torch.zeros_like(step))[0] * len(indices)
        total += 0.5 * float((full * curved).sum()) / count
    return total + 0.5 * float(
        step
        @ nominal.objective.second_derivatives(
            torch.zeros(1, nominal.equation.size, dtype=step.dtype),
            step,
            torch.zeros(1, nominal.equation.size, dtype=step.dtype),
            step,
        )[1]
    )


def contenders(problem: Problem) -> dict[str, tuple[Any, OuterMethod]]:
    """Name -> oracle and outer method."""
    oracle, outer = problem.method.oracle, problem.method.outer
    found: dict[str, tuple[Any, OuterMethod]] = {
        "nhgd": (oracle, outer),
        "nhgd, one mesh": (replace(oracle, growth=replace(oracle.growth, coarse=0)), outer),
        "nhgd, all scenarios at once": (replace(oracle, growth=GrowthOptions(first=None)), outer),
    }
    for tolerance in (1e-1, 1e-2, 1e-4):
        for warm in (True, False):
            name = f"sample average, CG to {tolerance:g}, {'warm' if warm else 'cold'}"
            found[name] = (SampleAverage("nominal", tolerance, warm), LBFGS())
    found["sample average, factors of every scenario"] = (SampleAverage("factors"), LBFGS())
    for power, steps in ((0.5, (0.25, 0.5, 1.0, 2.0, 4.0, 16.0)), (1.0, (1.0, 2.0, 4.0, 8.0, 16.0, 64.0))):
        for step in steps:
            rule = StochasticApproximation(natural=False, step=step / _SCALE[0], shift=10.0, power=power)
            name = f"stochastic gradient, {step:g}/(k + 10)^{power:g}"
            found[name] = (RobbinsMonro(8, tolerance=1e-1), rule)
    return found


# The curvature that determines the steps of stochastic gradients; it is set when it is known.
_SCALE = [1.0]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("file", nargs="?", default=_FILE)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--limit", type=float, default=60.0, help="seconds a run")
    arguments.add_argument("--set", action="append", default=[], dest="overrides")
    arguments.add_argument("--methods", default="", help="names with ; between, of which * ends a part of one")
    given = arguments.parse_args()
    torch.set_num_threads(2)
    cells = {"mesh.cells": [24, 24, 24]} if given.file == _FILE else {}
    overrides = {**cells, **dict(parse_override(each) for each in given.overrides)}
    problem = nhgd.load(given.file, overrides)
    target = problem.stages[-1]
    assert isinstance(target, ScenarioProblem)
    best, value = optimum(problem)
    _SCALE[0] = _curvature(target)
    print(f"{problem}\noptimum {value:.9e}", flush=True)
    names = [
        name
        for name in contenders(problem)
        if not given.methods
        or any(name == each or (each[-1] == "*" and each[:-1] in name) for each in given.methods.split(";"))
    ]
    found: dict[str, list[Reached]] = {name: [] for name in names}
    for _ in range(given.repeats):
        for name in names:
            # No run keeps anything of the last one.
            fresh = nhgd.load(given.file, overrides)
            found[name].append(measured(fresh, target, *contenders(fresh)[name], best, value, given.limit))
            print(f"{name:60s} {_row(found[name][-1])}", flush=True)
    print("\nmedians")
    for name, runs in found.items():
        print(f"{name:60s} {_row({each: _median([run[each] for run in runs]) for each in GAPS})}")


# Gap -> seconds, solves and solves on a coarser mesh up to the first control after which the gap is kept; None if it is
# not reached.
Reached = dict[float, tuple[float, int, int] | None]


def measured(
    fresh: Problem, target: ScenarioProblem, oracle: Any, outer: OuterMethod, best: Tensor, value: float, limit: float
) -> Reached:
    """Solves a new problem; `target` is the same problem, with which gaps are computed."""
    problem = fresh.stages[-1]
    clocked = Clocked(oracle, limit)
    clocked.start()
    stopping = replace(fresh.method.stopping, iterations=10_000, rtol=1e-7)
    minimise(problem, clocked, outer, stopping, interrupted=lambda: clocked.done)
    looked_at = _some(len(clocked.seen))
    gaps = [gap(target, clocked.seen[k][3], best) / value for k in looked_at]
    reached: Reached = dict.fromkeys(GAPS)
    for wanted in GAPS:
        bad = [k for k, each in enumerate(gaps) if not each <= wanted]
        first = bad[-1] + 1 if bad else 0
        if first < len(gaps):
            reached[wanted] = clocked.seen[looked_at[first]][:3]
    return reached


def _some(count: int) -> list[int]:
    """Indices of records: all of few records, a part of many, always with the last one."""
    if count <= 40:
        return list(range(count))
    return sorted({min(round(count ** (k / 39)) - 1, count - 1) for k in range(40)})


def _curvature(target: ScenarioProblem) -> float:
    """The largest eigenvalue of the nominal reduced Hessian in the metric of the control, by power iteration."""
    from nhgd_pde.engine.curvature.factored import Factored
    from nhgd_pde.engine.inner_loop import InnerOptions
    from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
    from nhgd_pde.engine.oracle import Accuracy

    nominal = target.nominal
    method = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    u, v = nominal.start()
    _, state = method.evaluate(nominal, v, method.init(nominal, u, v), Accuracy(1e-8, 1e-8))
    hessian, d = method.hessian(nominal, v, state), torch.ones_like(v)
    largest = 1.0
    for _ in range(10):
        image = nominal.outer_metric.gradient(hessian(d)[None])[0]
        largest = nominal.outer_metric.norm(image[None]) / nominal.outer_metric.norm(d[None])
        d = image / largest
    return largest


def _median(runs: list[tuple[float, int, int] | None]) -> tuple[float, int, int] | None:
    known = [run for run in runs if run is not None]
    if 2 * len(known) <= len(runs):
        return None
    return (
        statistics.median(run[0] for run in known),
        int(statistics.median(run[1] for run in known)),
        int(statistics.median(run[2] for run in known)),
    )


def _row(reached: Reached) -> str:
    cells = []
    for each in GAPS:
        found = reached[each]
        more = f" + {found[2]:,d}" if found is not None and found[2] else ""
        cells.append(f"{each:g}: " + (f"{found[0]:7.2f} s {found[1]:6,d}{more:8s}" if found else f"{'-':>24s}"))
    return "  ".join(cells)


if __name__ == "__main__":
    main()
