"""The judgement of a control over many scenarios: by the scenarios that it was found with, and by fresh ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.outer.reduced_objective import Evaluation
from ..objective.risk import RiskMeasure
from ..uncertainty.estimation import ExpectationEstimate, expectation
from ..uncertainty.fresh import FreshSample
from ..uncertainty.inputs import RandomInputs

# Relative error of the states of the scenarios that judge: the spread of fresh scenarios is larger by far.
STATE_ERROR = 1e-8
# The quantiles of the objective that summary.json has.
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class Judgement:
    """The objective of a control in the scenarios of the sample and in fresh ones.

    Attributes:
        values: (S,) the objective in every scenario of the sample.
        weights: (S,) the weights of these scenarios.
        fresh: (F,) the objective in fresh scenarios; empty if there are none.
        drawn: how the fresh scenarios were drawn.
        confidence: confidence level of `interval`.
        sample: (S, m) standard variables of the sample; None if they are not known.
        inputs: the random inputs that the standard variables belong to.
        streamed: the control was found with scenarios of a stream, so that the sample was not minimised over.
    """

    risk: RiskMeasure
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
        """The risk measure over the sample, without smoothing."""
        return self.risk.exact(torch.from_numpy(self.values), torch.from_numpy(self.weights))

    @property
    def out_of_sample(self) -> float:
        """The risk measure over the random inputs, estimated from the fresh scenarios; NaN if there are none."""
        return self.estimate.value

    def objective(self, evaluation: Evaluation) -> float:
        """The reported objective: over the whole sample, or with a stream over the distribution of the random inputs.

        The last evaluation has this value only if it was made at this control with every scenario of the sample, and
        with states as accurate as those that the judgement solves for.
        """
        whole = evaluation.scenarios == len(self.values) and not (evaluation.blended or self.streamed)
        whole = whole and evaluation.state_error <= STATE_ERROR
        if whole and evaluation.sampling_error == 0.0:
            return evaluation.objective
        found = self.out_of_sample if self.streamed and len(self.fresh) else self.in_sample
        return found if math.isfinite(found) else evaluation.objective

    @property
    def interval(self) -> tuple[float, float]:
        """The confidence interval of the value that `out_of_sample` estimates."""
        return self.estimate.interval

    @cached_property
    def estimate(self) -> ExpectationEstimate:
        """The estimate of the risk measure, as the expectation of the contributions of scenarios."""
        if not len(self.fresh) or not np.isfinite(self.fresh).all():
            return ExpectationEstimate(math.nan, math.nan, (math.nan, math.nan))
        values, weights = torch.from_numpy(self.fresh), torch.from_numpy(self.drawn.weights)
        terms = None
        if not self._doubt:
            terms = self.risk.contributions(values, weights, lambda f: self._expectation(f).value)
        if terms is None:
            return ExpectationEstimate(self.risk.exact(values, weights), math.nan, (math.nan, math.nan))
        found = self._expectation(terms)
        hidden = STATE_ERROR * float(np.abs(self.fresh).max())
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
        """The entry `uncertainty` of summary.json."""
        values, weights = self.values, self.weights / self.weights.sum()
        if len(self.fresh):
            values, weights = self.fresh, self.drawn.weights
        mean = self._mean(values, weights)
        variance = self._mean((values - mean) ** 2, weights)
        return {
            "risk": self.risk.name,
            # Over the sample, the measure at the minimiser of the smoothed measure exceeds its minimum by at most this.
            "smoothing_bound": self.risk.gap(torch.from_numpy(self.weights)),
            "in_sample": self.in_sample,
            "out_of_sample": self.out_of_sample,
            "interval": list(self.interval),
            "standard_error": self.estimate.error,
            "estimator": self.estimator,
            "confidence": self.confidence,
            "fresh_scenarios": len(self.fresh),
            "objective_mean": mean,
            "objective_std": math.sqrt(max(variance, 0.0)),
            "objective_quantiles": {f"{q:g}": _quantile(values, weights, q) for q in _QUANTILES},
        }

    def _mean(self, values: np.ndarray, weights: np.ndarray) -> float:
        """The mean; of fresh scenarios by the same estimator as the risk measure, so that numbers agree."""
        if len(self.fresh) and np.isfinite(values).all():
            return expectation(values, self.drawn, self.confidence).value
        return float(weights @ values)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of scenarios.csv: objective and random inputs of every scenario, first those of the sample."""
        groups = (1, self.values, self.weights, self.sample), (0, self.fresh, self.drawn.weights, self.drawn.z)
        for in_sample, values, weights, z in groups:
            columns = {} if self.inputs is None or z is None else self.inputs.columns(z)
            for number, (value, weight) in enumerate(zip(values, weights, strict=True)):
                row = {"scenario": number, "sample": in_sample, "weight": float(weight), "objective": float(value)}
                # A random input may be called weight.
                named = {
                    f"input.{name}" if name in row else name: float(each[number]) for name, each in columns.items()
                }
                yield row | named

    def sentence(self, evaluation: Evaluation) -> str:
        """A part of the last line of a run that ended with an evaluation."""
        text, name = "", self.risk.name
        if not self.streamed and self.objective(evaluation) != evaluation.objective:
            text = f"; {name} over all {len(self.values):,} scenarios of the sample {self.in_sample:.9e}"
        if not len(self.fresh):
            return text
        low, high = self.interval
        known = math.isfinite(low)
        inside = f"{self.confidence:.0%} interval {low:.6g} to {high:.6g}" if known else self.estimator
        return f"{text}; {name} in {len(self.fresh):,} fresh scenarios {self.out_of_sample:.6g} ({inside})"


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """A weighted quantile; NaN if weights are negative, as those of a sparse quadrature, which are no probabilities."""
    if bool((weights < 0.0).any()):
        return math.nan
    return float(np.quantile(values, share, weights=weights, method="inverted_cdf"))
