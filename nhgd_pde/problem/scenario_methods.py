"""How a file with random inputs is solved: the method for the nominal problem, made one over scenarios."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..engine.nhgd import NHGD
from ..engine.oracle import Oracle
from ..engine.outer.base import OuterMethod
from ..engine.outer.newton_cg import NewtonCG
from ..engine.scenarios.oracle import GrowthOptions, ScenarioNHGD
from .loading import ProblemFile
from .scenario_spec import ScenariosSpec

# The Hessian is that of the nominal scenario: more of its system than this is not worth solving for.
_FORCING, _LEAST_FORCING = 0.05, 0.02
_SECANTS = 20
# Scenarios looked at first.
_FIRST = 8


def over_scenarios(
    file: ProblemFile, oracle: Oracle[Any, Any], outer: OuterMethod, description: str
) -> tuple[Oracle[Any, Any], OuterMethod[Any], str]:
    """The method over scenarios that a method for one stands for.

    Raises:
        ProblemError: a method that does not take random inputs, or an inverse without factors.
    """
    spec = file.spec
    scenarios = spec.scenarios or ScenariosSpec()
    if not isinstance(oracle, NHGD):
        raise file.error("method", f"expected nhgd for a problem with random inputs, found {spec.method!r}")
    if not oracle.curvature.pointwise or oracle.inner.tests is not None:
        given = spec.curvature.kind if spec.curvature.kind != "auto" else f"tests: {spec.inner.tests}"
        raise file.error("curvature.kind", f"expected factored, which scenarios can share, found {given!r}")
    growing = scenarios.strategy == "growing" and scenarios.sampling != "quadrature"
    first = _FIRST if scenarios.batch == "auto" else min(_FIRST, int(scenarios.batch))
    found = ScenarioNHGD(oracle, GrowthOptions(first=first if growing else None))
    if isinstance(outer, NewtonCG):
        outer = replace(outer, forcing=_FORCING, least=_LEAST_FORCING, memory=_SECANTS)
    how = "batches that grow" if growing else "all at once"
    return found, outer, f"{description}, shared by all scenarios, {how}"
