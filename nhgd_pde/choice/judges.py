"""The oracle that judges whether the start of a run is a solution, where the oracle of the run cannot tell."""

from __future__ import annotations

from typing import Any

from ..engine.curvature.factored import Factored
from ..engine.inner_loop import InnerOptions
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Oracle
from ..engine.scales import ScalesOracle


def judge_of(oracle: Oracle[Any, Any]) -> Oracle[Any, Any] | None:
    """The oracle that judges the start; None where the first evaluation of the oracle of the run can tell."""
    sampled = isinstance(oracle, NHGD) and oracle.inner.tests is not None
    exact = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    return exact if sampled or not isinstance(oracle, ScalesOracle) else None
