"""The final answer over many scenarios, judged by those it was made with and by fresh ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from ..engine.curvature.factored import Factored
from ..engine.inner import InnerOptions
from ..engine.loop import Stopping
from ..engine.minimise import minimise
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Accuracy
from ..engine.outer.lbfgs import LBFGS
from ..engine.outer.mma import MMA
from ..engine.scenarios.systems import solve_states
from ..engine.scenarios.team import ALONE, Team
from ..objective.risk import Risk
from ..pde_problem import PDEProblem
from ..scenario_problem import ScenarioProblem

# Relative error of the states of fresh scenarios: their spread is larger by far.
_STATES = 1e-6
_RESAMPLES = 1000
# Scenarios whose spread tells how wide a kink is rounded.
_MOST_FITTED = 256
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What an answer costs in the scenarios of the sample and in fresh ones.

    Attributes:
        risk: the measure.
        values: (S,) the objective in every scenario of the sample.
        weights: (S,) theirs.
        fresh: (F,) the objective in fresh scenarios; empty without any.
        confidence: of `interval`.
    """

    risk: Risk
    values: np.ndarray
    weights: np.ndarray
    fresh: np.ndarray
    confidence: float

    @property
    def in_sample(self) -> float:
        """The measure, without smoothing, of the sample."""
        return self.risk.exact(torch.from_numpy(self.values), torch.from_numpy(self.weights))

    @property
    def out_of_sample(self) -> float:
        """The same of the fresh scenarios; NaN without any."""
        return self._measure(self.fresh) if len(self.fresh) else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Of `out_of_sample`: Student's for the mean, else the percentiles of resampled measures (Efron 1979)."""
        count = len(self.fresh)
        if count < 2:
            return math.nan, math.nan
        if self.risk.linear:
            half = scipy.stats.t.ppf(0.5 + 0.5 * self.confidence, count - 1) * self.fresh.std(ddof=1) / math.sqrt(count)
            return self.out_of_sample - half, self.out_of_sample + half
        generator = np.random.default_rng(0)
        found = [self._measure(generator.choice(self.fresh, count)) for _ in range(_RESAMPLES)]
        low, high = np.quantile(found, [0.5 - 0.5 * self.confidence, 0.5 + 0.5 * self.confidence])
        return float(low), float(high)

    def _measure(self, values: np.ndarray) -> float:
        weights = torch.full((len(values),), 1.0 / len(values), dtype=torch.float64)
        return self.risk.exact(torch.from_numpy(values), weights)

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        of, weights = self.values, self.weights / self.weights.sum()
        if len(self.fresh):
            of, weights = self.fresh, np.full(len(self.fresh), 1.0 / len(self.fresh))
        mean = float(weights @ of)
        low, high = self.interval
        return {
            "risk": self.risk.name,
            "in_sample": self.in_sample,
            "out_of_sample": self.out_of_sample,
            "interval": [low, high],
            "confidence": self.confidence,
            "fresh_scenarios": len(self.fresh),
            "objective_mean": mean,
            "objective_std": math.sqrt(max(float(weights @ (of - mean) ** 2), 0.0)),
            "objective_quantiles": {f"{q:g}": _quantile(of, weights, q) for q in _QUANTILES},
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """The objective in every scenario, those of the sample first."""
        for number, (value, weight) in enumerate(zip(self.values, self.weights, strict=True)):
            yield {"scenario": number, "sample": 1, "weight": float(weight), "objective": float(value)}
        for number, value in enumerate(self.fresh):
            yield {"scenario": number, "sample": 0, "weight": 1.0 / len(self.fresh), "objective": float(value)}

    def sentence(self) -> str:
        """A part of the last line of a run."""
        if not len(self.fresh):
            return ""
        low, high = self.interval
        inside = f"{self.confidence:.0%} interval {low:.6g} to {high:.6g}"
        return f"; {self.risk.name} in {len(self.fresh):,} fresh scenarios {self.out_of_sample:.6g} ({inside})"


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """NaN where weights of a sparse quadrature are negative, which are no probabilities."""
    if bool((weights < 0.0).any()):
        return math.nan
    return float(np.quantile(values, share, weights=weights, method="inverted_cdf"))


def scenario_values(
    problem: ScenarioProblem, v: Tensor, parts: Callable[[int, int], PDEProblem], count: int, team: Team = ALONE
) -> np.ndarray:
    """The objective (count,) in scenarios that parts(first, number of them) are the problems of, shared by a team."""
    nominal = problem.nominal
    method = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    middle, state = method.evaluate(nominal, v, method.init(nominal, nominal.start()[0], v), Accuracy(1e-8, 1e-8))
    if not middle.finite:
        return np.full(count, math.nan)
    goal = _STATES * nominal.inner_metric.norm(state.u)
    start, own = team.portion(count)
    found = [v[:0]]
    with team.together():
        for first in range(start, start + own, problem.at_once):
            size = min(problem.at_once, start + own - first)
            part = parts(first, size)
            inverse: Any = state.inner.curvature
            solved = solve_states(part, v, state.u.expand(size, -1).clone(), inverse, goal)
            values = part.scenario_values(solved.solution, v)
            found.append(torch.full_like(values, math.nan) if solved.message else values)
    every = team.joined(torch.cat(found), torch.arange(start, start + own), count)
    return every.cpu().numpy() + nominal.control_value(v)


def judge(problem: ScenarioProblem, v: Tensor, fresh: int, confidence: float, team: Team = ALONE) -> Judgement:
    """Judge a control (p,) by the scenarios of the sample and by fresh ones."""
    every = torch.arange(len(problem.z))
    seen = scenario_values(
        problem, v, lambda first, size: problem.part(every[first : first + size]), len(problem.z), team
    )
    others = scenario_values(problem, v, problem.drawn, fresh, team) if fresh else np.zeros(0)
    return Judgement(problem.risk, seen, problem.weights.cpu().numpy(), others, confidence)


def fitted(problem: ScenarioProblem, team: Team = ALONE) -> ScenarioProblem:
    """The problem with the kinks of its risk measure rounded over a share of the spread of the objective.

    The spread is that of the sample's first scenarios at the optimum of the nominal one, to some digits.
    """
    if problem.risk.linear:
        return problem
    nominal, count = problem.nominal, min(len(problem.z), _MOST_FITTED)
    method = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    outer = MMA() if nominal.constraint is not None else LBFGS()
    found = minimise(nominal, method, outer, Stopping(iterations=30, rtol=1e-2))
    v = found.last.evaluation.v
    every = torch.arange(count)
    values = scenario_values(problem, v, lambda first, size: problem.part(every[first : first + size]), count, team)
    if not np.isfinite(values).all():
        return problem
    weights = problem.weights[:count] / problem.weights[:count].sum()
    return replace(problem, risk=problem.risk.fitted(torch.from_numpy(values).to(weights), weights))
