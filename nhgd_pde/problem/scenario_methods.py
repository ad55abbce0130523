"""How a file with random inputs is solved: the method for the nominal problem, made one over scenarios."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..engine.nhgd import NHGD
from ..engine.oracle import Oracle
from ..engine.outer.base import OuterMethod
from ..engine.outer.newton_cg import NewtonCG
from ..engine.outer.stochastic import StochasticApproximation
from ..engine.scenarios.growth import GrowthOptions
from ..engine.scenarios.oracle import ScenarioNHGD
from ..engine.scenarios.saga import SAGA
from ..engine.scenarios.streaming import Streaming
from ..methods.adjoint import Adjoint
from ..methods.sample_average import SampleAverage
from .loading import ProblemFile
from .scenario_spec import CVaRSpec, ScenariosSpec

# The Hessian is that of the nominal scenario: more of its system than this is not worth solving for.
_FORCING, _LEAST_FORCING = 0.05, 0.02
_SECANTS = 20
# Scenarios looked at first, and those of a minibatch.
_FIRST = 16
_MINIBATCH = 8


def over_scenarios(
    file: ProblemFile, oracle: Oracle[Any, Any], outer: OuterMethod[Any], description: str
) -> tuple[Oracle[Any, Any], OuterMethod[Any], str]:
    """The method over scenarios that a method for one stands for.

    Raises:
        ProblemError: a method that does not take random inputs, or an inverse without factors.
    """
    spec = file.spec
    if isinstance(oracle, Adjoint):
        return SampleAverage("factors"), outer, "exact adjoints of every scenario"
    if not isinstance(oracle, NHGD):
        raise file.error("method", f"expected nhgd or adjoint for a problem with random inputs, found {spec.method!r}")
    if not oracle.curvature.pointwise or oracle.inner.tests is not None:
        given = spec.curvature.kind if spec.curvature.kind != "auto" else f"tests: {spec.inner.tests}"
        raise file.error("curvature.kind", f"expected factored, which scenarios can share, found {given!r}")
    strategy, how = _strategy(file, oracle)
    if not isinstance(strategy, ScenarioNHGD):
        if spec.outer.method not in ("auto", "gradient"):
            message = f"expected auto or gradient: steps of strategy {_scenarios(file).strategy} are not searched"
            raise file.error("outer.method", f"{message}, found {spec.outer.method!r}")
        step = None if spec.outer.step == "auto" else float(spec.outer.step)
        outer = StochasticApproximation(natural=spec.outer.method == "auto", step=step)
    elif isinstance(outer, NewtonCG):
        outer = replace(outer, forcing=_FORCING, least=_LEAST_FORCING, memory=_SECANTS)
    return strategy, outer, f"{description}, shared by all scenarios, {how}"


def _strategy(file: ProblemFile, base: NHGD) -> tuple[Oracle[Any, Any], str]:
    """How the scenarios are gone through, and a few words on it."""
    scenarios = _scenarios(file)
    batch = None if scenarios.batch == "auto" else int(scenarios.batch)
    linear = file.spec.risk == "mean"
    if scenarios.strategy == "saga":
        if not linear:
            raise file.error("scenarios.strategy", "expected growing or all with a risk other than the mean")
        return SAGA(base, batch or _MINIBATCH, seed=file.spec.seed), "a table of hypergradients"
    if scenarios.strategy == "streaming":
        if not linear and not isinstance(file.spec.risk, CVaRSpec):
            raise file.error("scenarios.strategy", "expected growing or all with a risk other than the mean and cvar")
        return Streaming(base, batch or _MINIBATCH), "fresh ones in every step"
    growing = scenarios.strategy == "growing" and scenarios.sampling != "quadrature"
    first = min(_FIRST, batch or _FIRST) if growing else None
    return ScenarioNHGD(base, GrowthOptions(first=first)), "batches that grow" if growing else "all at once"


def _scenarios(file: ProblemFile) -> ScenariosSpec:
    return file.spec.scenarios or ScenariosSpec()
