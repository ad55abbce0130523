"""The final answer over many scenarios, judged by those it was made with and by fresh ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.curvature.factored import Factored
from ..engine.inner_loop import InnerOptions
from ..engine.loop import Stopping
from ..engine.minimise import minimise, outer_space
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Accuracy
from ..engine.outer.base import Evaluation
from ..engine.outer.lbfgs import LBFGS
from ..engine.outer.mma import MMA
from ..engine.scenarios.part_equations import solve_states
from ..engine.scenarios.team import ALONE, Team, Work
from ..linalg.factorisation import SingularMatrixError
from ..objective.risk import Risk
from ..pde_problem import PDEProblem
from ..problem_file.errors import ProblemError
from ..scenario_problem import ScenarioProblem
from ..uncertainty.direction import main_direction
from ..uncertainty.estimation import ExpectationEstimate, expectation
from ..uncertainty.fresh import FreshSample
from ..uncertainty.inputs import RandomInputs

# Relative error of the states of fresh scenarios: their spread, less what is known of it, is larger by far.
_STATES = 1e-8
# Scenarios whose spread tells how wide a kink is rounded.
_MOST_FITTED = 256
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class Judgement:
    """The objective of a control in the scenarios of the sample and in fresh ones.

    Attributes:
        risk: the measure.
        values: (S,) the objective in every scenario of the sample.
        weights: (S,) the weights of these scenarios.
        fresh: (F,) the objective in fresh scenarios; empty without any.
        drawn: how the fresh scenarios were drawn.
        confidence: confidence level of `interval`.
        sample: (S, m) standard variables of the sample; None where they are not known.
        inputs: the random inputs that the standard variables belong to.
        streamed: the control was found with scenarios of a stream, so that the sample was not minimised over.
    """

    risk: Risk
    values: np.ndarray
    weights: np.ndarray
    fresh: np.ndarray
    drawn: FreshSample
    confidence: float
    sample: np.ndarray | None = None
    inputs: RandomInputs | None = None
    streamed: bool = False

    @property
    def in_sample(self) -> float:
        """The measure, without smoothing, of the sample."""
        return self.risk.exact(torch.from_numpy(self.values), torch.from_numpy(self.weights))

    @property
    def out_of_sample(self) -> float:
        """The same of the random inputs, estimated from the fresh scenarios; NaN without any."""
        return self.estimate.value

    def objective(self, evaluation: Evaluation) -> float:
        """The reported objective: over the whole sample, or with a stream over the distribution of the random inputs.

        The last evaluation has this value only if it was made at this control with every scenario of the sample, and
        with states as accurate as those that the judgement solves for.
        """
        whole = evaluation.scenarios == len(self.values) and not (evaluation.blended or self.streamed)
        whole = whole and evaluation.state_error <= _STATES
        if whole and evaluation.sampling_error == 0.0:
            return evaluation.objective
        found = self.out_of_sample if self.streamed and len(self.fresh) else self.in_sample
        return found if math.isfinite(found) else evaluation.objective

    @property
    def interval(self) -> tuple[float, float]:
        """That holds what `out_of_sample` estimates."""
        return self.estimate.interval

    @cached_property
    def estimate(self) -> ExpectationEstimate:
        """Of the measure as the expectation of what scenarios contribute to it."""
        if not len(self.fresh) or not np.isfinite(self.fresh).all():
            return ExpectationEstimate(math.nan, math.nan, (math.nan, math.nan))
        values, weights = torch.from_numpy(self.fresh), torch.from_numpy(self.drawn.weights)
        if self._doubt:
            return ExpectationEstimate(self.risk.exact(values, weights), math.nan, (math.nan, math.nan))
        terms = self.risk.contributions(values, weights, lambda f: self._expectation(f).value)
        if terms is None:
            return ExpectationEstimate(self.risk.exact(values, weights), math.nan, (math.nan, math.nan))
        found = self._expectation(terms)
        hidden = _STATES * float(np.abs(self.fresh).max())
        return replace(found, interval=(found.interval[0] - hidden, found.interval[1] + hidden))

    @cached_property
    def _doubt(self) -> str:
        """A sentence on why there is no interval; empty where no reason is known."""
        return self.risk.doubt(torch.from_numpy(self.fresh), torch.from_numpy(self.drawn.weights))

    def _expectation(self, terms: Tensor) -> ExpectationEstimate:
        return expectation(terms.numpy(), self.drawn, self.confidence)

    @property
    def estimator(self) -> str:
        """How `out_of_sample` was estimated, in a few words."""
        found = self.estimate
        if not math.isfinite(found.error):
            finite = len(self.fresh) and np.isfinite(self.fresh).all()
            return "" if not len(self.fresh) else (self._doubt if finite else "") or "no interval"
        wide = "with more of the rare scenarios" if self.drawn.wide else ""
        fitted = f"less {found.functions} polynomials of known mean (degree {found.degree})" if found.functions else ""
        return ", ".join(each for each in ("mean over fresh scenarios", wide, fitted) if each)

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        of, weights = self.values, self.weights / self.weights.sum()
        if len(self.fresh):
            of, weights = self.fresh, self.drawn.weights
        mean = self._mean(of, weights)
        variance = self._mean((of - mean) ** 2, weights)
        low, high = self.interval
        return {
            "risk": self.risk.name,
            # Over the sample, the measure at the minimiser of the smoothed measure exceeds its minimum by at most this.
            "smoothing_bound": self.risk.gap(torch.from_numpy(self.weights)),
            "in_sample": self.in_sample,
            "out_of_sample": self.out_of_sample,
            "interval": [low, high],
            "standard_error": self.estimate.error,
            "estimator": self.estimator,
            "confidence": self.confidence,
            "fresh_scenarios": len(self.fresh),
            "objective_mean": mean,
            "objective_std": math.sqrt(max(variance, 0.0)),
            "objective_quantiles": {f"{q:g}": _quantile(of, weights, q) for q in _QUANTILES},
        }

    def _mean(self, values: np.ndarray, weights: np.ndarray) -> float:
        """Of fresh scenarios by the same estimator as the measure, so that numbers agree."""
        if len(self.fresh) and np.isfinite(values).all():
            return expectation(values, self.drawn, self.confidence).value
        return float(weights @ values)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The objective in every scenario and its random inputs, those of the sample first."""
        groups = (1, self.values, self.weights, self.sample), (0, self.fresh, self.drawn.weights, self.drawn.z)
        for own, values, weights, z in groups:
            columns = {} if self.inputs is None or z is None else self.inputs.columns(z)
            for number, (value, weight) in enumerate(zip(values, weights, strict=True)):
                row = {"scenario": number, "sample": own, "weight": float(weight), "objective": float(value)}
                # A random input may be called weight.
                named = {f"input.{name}" if name in row else name: float(of[number]) for name, of in columns.items()}
                yield row | named

    def sentence(self, evaluation: Evaluation) -> str:
        """A part of the last line of a run that ended with an evaluation."""
        own = ""
        if not self.streamed and self.objective(evaluation) != evaluation.objective:
            own = f"; {self.risk.name} over all {len(self.values):,} scenarios of the sample {self.in_sample:.9e}"
        return own + self._of_fresh()

    def _of_fresh(self) -> str:
        if not len(self.fresh):
            return ""
        low, high = self.interval
        known = math.isfinite(low)
        inside = f"{self.confidence:.0%} interval {low:.6g} to {high:.6g}" if known else self.estimator
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
    length = nominal.inner_metric.norm(state.u)
    start, own = team.portion(count)
    found, work = [v[:0]], Work(problem.counts)
    with team.together():
        for first in range(start, start + own, problem.at_once):
            size = min(problem.at_once, start + own - first)
            part = parts(first, size)
            inverse: Any = state.inner.curvature
            solved = solve_states(part, v, state.u.expand(size, -1).clone(), inverse, _STATES, length)
            values = part.scenario_values(solved.solution, v)
            found.append(torch.full_like(values, math.nan) if solved.message else values)
    every = team.joined(torch.cat(found), torch.arange(start, start + own), count)
    work.by_all(team.summed([work.here(v)], v)[0])
    return every.cpu().numpy() + nominal.control_value(v) + outer_space(nominal).l1(v)


def judge(problem: ScenarioProblem, v: Tensor, fresh: int, confidence: float, team: Team = ALONE) -> Judgement:
    """Judge a control (p,) by the scenarios of the sample and by fresh ones.

    The scenarios of the sample tell in which direction of the random variables the rare scenarios that matter lie.
    Where rare scenarios that are looked for cannot be solved, or have coefficients out of their range, those that come
    up by themselves do.
    """
    every = torch.arange(len(problem.z))
    seen = scenario_values(
        problem, v, lambda first, size: problem.part(every[first : first + size]), len(problem.z), team
    )
    weights = problem.weights.cpu().numpy()
    drawn = problem.fresh(fresh, True)
    direction = main_direction(problem.z, seen, drawn.distributions)
    if direction is not None:
        drawn = problem.fresh(fresh, True, direction)
    try:
        others = _fresh_values(problem, v, drawn, team)
    except (ProblemError, SingularMatrixError):
        others = np.full(fresh, math.nan)
    if drawn.wide and not np.isfinite(others).all():
        drawn = problem.fresh(fresh, False)
        others = _fresh_values(problem, v, drawn, team)
    return Judgement(problem.risk, seen, weights, others, drawn, confidence)


def _fresh_values(problem: ScenarioProblem, v: Tensor, drawn: FreshSample, team: Team) -> np.ndarray:
    def part(first: int, size: int) -> PDEProblem:
        return problem.make(drawn.z[first : first + size], np.arange(first, first + size))

    return scenario_values(problem, v, part, len(drawn.z), team) if len(drawn.z) else np.zeros(0)


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
    try:
        values = scenario_values(problem, v, lambda first, size: problem.part(every[first : first + size]), count, team)
    except SingularMatrixError:
        # At the optimum of the nominal scenario a coefficient of another scenario is out of its range.
        return problem
    if not np.isfinite(values).all():
        return problem
    weights = problem.weights[:count] / problem.weights[:count].sum()
    return replace(problem, risk=problem.risk.fitted(torch.from_numpy(values).to(weights), weights))
