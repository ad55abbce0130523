"""The oracle that judges whether the start of a run over scenarios is a solution."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from ..engine.curvature.factored import Factored
from ..engine.inner_loop import InnerOptions
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Oracle
from ..engine.scenarios.growth import GrowthOptions
from ..engine.scenarios.minibatches import Minibatches
from ..engine.scenarios.scenario_nhgd import ScenarioNHGD
from ..methods.compared_method import Compared
from .one_scenario import judge_of

# Number of scenarios that are looked at first: these few tell whether a start is far from a solution.
_FIRST = 4


def judge_over_scenarios(oracle: Oracle[Any, Any], whole: bool) -> Oracle[Any, Any] | None:
    """The oracle that judges the start; None where the first evaluation of the oracle of the run can tell.

    Args:
        oracle: the oracle of the run.
        whole: the first scenarios do not represent all of them, so that only all scenarios can tell.
    """
    if isinstance(oracle, ScenarioNHGD):
        return replace(oracle, growth=_growth(whole or oracle.growth.first is None))
    if isinstance(oracle, Minibatches):
        return ScenarioNHGD(oracle.base, _growth(whole))
    if isinstance(oracle, Compared) and oracle.rough:
        return ScenarioNHGD(NHGD(InnerOptions(), Factored(), HypergradientOptions()), _growth(whole))
    return judge_of(oracle)


def _growth(whole: bool) -> GrowthOptions:
    """Begins with the nominal scenario and a few others, then takes more; every scenario is solved as well as asked."""
    return GrowthOptions(first=sys.maxsize if whole else _FIRST, roughest=0.0, coarse=0)
