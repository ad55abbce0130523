"""The oracle that judges whether the start of a run is a solution, where the oracle of the run cannot tell."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from ..engine.curvature.factored import Factored
from ..engine.inner_loop import InnerOptions
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Oracle
from ..engine.scales import ScalesOracle
from ..engine.scenarios.growth import GrowthOptions
from ..engine.scenarios.minibatches import Minibatches
from ..engine.scenarios.scenario_nhgd import ScenarioNHGD
from ..methods.robbins_monro import RobbinsMonro
from ..methods.sample_average import SampleAverage

# Scenarios that are looked at first: they tell that a start is far from a solution.
_FIRST = 4


def judge_of(oracle: Oracle[Any, Any], whole: bool) -> Oracle[Any, Any] | None:
    """The judge beside an oracle; None where the first evaluation of the oracle tells all by itself.

    Args:
        oracle: the oracle of the run.
        whole: the first scenarios are not fair for all, so that a part of them tells nothing.
    """
    exact = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    if isinstance(oracle, ScenarioNHGD):
        return replace(oracle, growth=_growth(whole or oracle.growth.first is None))
    if isinstance(oracle, Minibatches):
        return ScenarioNHGD(oracle.base, _growth(whole))
    if isinstance(oracle, RobbinsMonro) or (isinstance(oracle, SampleAverage) and oracle.solver == "nominal"):
        return ScenarioNHGD(exact, _growth(whole))
    sampled = isinstance(oracle, NHGD) and oracle.inner.tests is not None
    return exact if sampled or not isinstance(oracle, ScalesOracle) else None


def _growth(whole: bool) -> GrowthOptions:
    """The nominal scenario, a few others, then more of them; all are solved as well as is asked for."""
    return GrowthOptions(first=sys.maxsize if whole else _FIRST, roughest=0.0, coarse=0)
