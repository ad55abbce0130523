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
from ..engine.scenarios.saga import SAGA
from ..engine.scenarios.scenario_nhgd import ScenarioNHGD
from ..engine.scenarios.streaming import Streaming
from ..methods.adjoint import Adjoint
from ..methods.registry import OVER_SCENARIOS
from ..methods.sample_average import SampleAverage
from ..problem_file.constraint_spec import StateSpec
from ..problem_file.loading import ProblemFile
from ..problem_file.scenario_spec import CVaRSpec, ScenariosSpec

# The Hessian is that of the nominal scenario: more of its system than this is not worth solving for.
_FORCING, _LEAST_FORCING = 0.05, 0.02
_SECANTS = 20
# Of a / (k + k0)^gamma, where the file does not say: k0 and gamma of the compared method, and of strategies.
_DECREASING, _CONSTANT = (10.0, 1.0), (1.0, 0.0)
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
    if spec.method in OVER_SCENARIOS:
        if OVER_SCENARIOS[spec.method].stepwise:
            outer = _stochastic(file, False, spec.method, *_DECREASING)
        return oracle, outer, description
    if not isinstance(oracle, NHGD):
        known = ", ".join(["nhgd", "adjoint", *OVER_SCENARIOS])
        raise file.error("method", f"expected one of {known} for a problem with random inputs, found {spec.method!r}")
    if not oracle.curvature.pointwise or oracle.inner.tests is not None:
        given = spec.curvature.kind if spec.curvature.kind != "auto" else f"tests: {spec.inner.tests}"
        raise file.error("curvature.kind", f"expected factored, which scenarios can share, found {given!r}")
    strategy, how = _strategy(file, oracle)
    if not isinstance(strategy, ScenarioNHGD):
        natural = spec.outer.method == "auto"
        outer = _stochastic(file, natural, f"strategy {_scenarios(file).strategy}", *_CONSTANT)
    elif isinstance(outer, NewtonCG):
        outer = replace(outer, forcing=_FORCING, least=_LEAST_FORCING, memory=_SECANTS)
    return strategy, outer, f"{description}, shared by all scenarios, {how}"


def compared_over_scenarios(file: ProblemFile) -> tuple[Oracle[Any, Any], str]:
    """One of the compared methods over scenarios, and a few words on it.

    Raises:
        ProblemError: a risk that minibatches do not estimate.
    """
    spec, options = file.spec, file.spec.adjoints
    method = OVER_SCENARIOS[spec.method]
    if method.stepwise and any(isinstance(each, StateSpec) for each in spec.constraints):
        message = "expected nhgd, adjoint or sample_average with bounds of the state, which hold in every scenario"
        raise file.error("method", f"{message}, found {spec.method!r}")
    if method.stepwise and spec.risk != "mean":
        raise file.error("risk", f"expected mean, which a minibatch estimates, with method {spec.method}")
    oracle = method.factory(
        solver="factors" if options.solver == "factors" else "nominal",
        tolerance=None if options.tolerance == "auto" else float(options.tolerance),
        warm=options.warm,
        batch=options.batch,
        fresh=options.fresh,
        seed=spec.seed,
    )
    how = f"batches of {options.batch}" if method.stepwise else f"by {options.solver}"
    return oracle, f"{method.description}, {how}"


def _stochastic(file: ProblemFile, natural: bool, what: str, shift: float, power: float) -> StochasticApproximation:
    """Steps without a search, with k0 and gamma where the file does not say."""
    outer = file.spec.outer
    if outer.method not in ("auto", "gradient"):
        message = f"expected auto or gradient: steps of {what} are not searched"
        raise file.error("outer.method", f"{message}, found {outer.method!r}")
    return StochasticApproximation(
        natural=natural,
        step=None if outer.step == "auto" else float(outer.step),
        shift=shift if outer.shift == "auto" else float(outer.shift),
        power=power if outer.power == "auto" else float(outer.power),
    )


def _strategy(file: ProblemFile, base: NHGD) -> tuple[Oracle[Any, Any], str]:
    """How the scenarios are gone through, and a few words on it."""
    scenarios = _scenarios(file)
    batch = None if scenarios.batch == "auto" else int(scenarios.batch)
    linear = file.spec.risk == "mean"
    bounded = any(isinstance(each, StateSpec) for each in file.spec.constraints)
    if bounded and scenarios.strategy in ("saga", "streaming"):
        message = "expected growing or all with bounds of the state, which hold in every scenario of the sample"
        raise file.error("scenarios.strategy", f"{message}, found {scenarios.strategy!r}")
    if scenarios.strategy == "saga":
        if not linear:
            raise file.error("scenarios.strategy", "expected growing or all with a risk other than the mean")
        return SAGA(base, batch or _MINIBATCH, seed=file.spec.seed), "a table of hypergradients"
    if scenarios.strategy == "streaming":
        if not linear and not isinstance(file.spec.risk, CVaRSpec):
            raise file.error("scenarios.strategy", "expected growing or all with a risk other than the mean and cvar")
        return Streaming(base, batch or _MINIBATCH), "fresh ones in every step"
    # Bounds of the state have multipliers in every scenario of the sample.
    growing = scenarios.strategy == "growing" and scenarios.sampling != "quadrature" and not bounded
    first = min(_FIRST, batch or _FIRST) if growing else None
    return ScenarioNHGD(base, GrowthOptions(first=first)), "batches that grow" if growing else "all at once"


def _scenarios(file: ProblemFile) -> ScenariosSpec:
    return file.spec.scenarios or ScenariosSpec()
