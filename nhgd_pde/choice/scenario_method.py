"""How a problem with random inputs is solved: the method over scenarios that the method for one scenario becomes."""

from __future__ import annotations

from typing import Any

from ..engine.nhgd import NHGD
from ..engine.oracle import Oracle
from ..engine.outer.base import OuterMethod
from ..engine.outer.stochastic import StochasticApproximation
from ..engine.scenarios.growth import GrowthOptions
from ..engine.scenarios.saga import SAGA
from ..engine.scenarios.scenario_nhgd import ScenarioNHGD
from ..engine.scenarios.streaming import Streaming
from ..methods.adjoint import Adjoint
from ..methods.compared_method import Compared
from ..problem_file.catalogue import SCENARIO_METHODS, found_at
from ..problem_file.loading import ProblemFile
from ..problem_file.scenario_spec import CVaRSpec, ScenariosSpec

# Default k0 and gamma of steps a / (k + k0)^gamma: for compared methods, and for strategies of nhgd.
_DECREASING, _CONSTANT = (10.0, 1.0), (1.0, 0.0)
# Default numbers of the scenarios that are looked at first, and of the scenarios in a minibatch.
_FIRST = 16
_MINIBATCH = 8
# Strategies with minibatches: the risks besides the mean that they estimate, and the words for these in a message.
_ESTIMATED: dict[str, tuple[tuple[type, ...], str]] = {"saga": ((), ""), "streaming": ((CVaRSpec,), " and cvar")}


def over_scenarios(
    file: ProblemFile, oracle: Oracle[Any, Any], outer: OuterMethod[Any], description: str
) -> tuple[Oracle[Any, Any], OuterMethod[Any], str]:
    """The method over scenarios that belongs to a method for one scenario.

    Args:
        file: the problem file.
        oracle: the oracle for the nominal scenario, or a compared method over scenarios.
        outer: the outer method for the nominal scenario.
        description: a few words on the oracle.

    Returns:
        The oracle and the outer method over scenarios, and a few words on them.

    Raises:
        ProblemError: a method that does not take random inputs, or an inverse without factors.
    """
    spec = file.spec
    if isinstance(oracle, Adjoint):
        sample_average = found_at(SCENARIO_METHODS["sample_average"])
        return sample_average("factors"), outer, "exact adjoints of every scenario"
    if isinstance(oracle, Compared) and spec.method in SCENARIO_METHODS:
        if oracle.stepwise:
            outer = _stochastic(file, False, spec.method, *_DECREASING)
        return oracle, outer, description
    if not isinstance(oracle, NHGD):
        known = ", ".join(["nhgd", "adjoint", *SCENARIO_METHODS])
        raise file.error("method", f"expected one of {known} for a problem with random inputs, found {spec.method!r}")
    if not oracle.curvature.pointwise or oracle.inner.tests is not None:
        given = spec.curvature.kind if spec.curvature.kind != "auto" else f"tests: {spec.inner.tests}"
        raise file.error("curvature.kind", f"expected factored, which scenarios can share, found {given!r}")
    strategy, how = _strategy(file, oracle)
    if not isinstance(strategy, ScenarioNHGD):
        natural = spec.outer.method == "auto"
        outer = _stochastic(file, natural, f"strategy {_scenarios(file).strategy}", *_CONSTANT)
    else:
        outer = outer.with_rough_hessian()
    return strategy, outer, f"{description}, shared by all scenarios, {how}"


def compared_over_scenarios(file: ProblemFile) -> tuple[Oracle[Any, Any], str]:
    """One of the compared methods over scenarios, and a few words on it.

    Raises:
        ProblemError: a file without random inputs, or conditions or a risk that minibatches do not estimate.
    """
    spec, options = file.spec, file.spec.adjoints
    if not spec.parameters:
        message = f"expected a method for one scenario, found {spec.method!r}, which goes through many: the file has no"
        raise file.error("method", f"{message} parameters, which are what is random")
    method: type[Compared] = found_at(SCENARIO_METHODS[spec.method])
    if method.stepwise and spec.bounds_state:
        message = "expected nhgd, adjoint or sample_average with bounds of the state, which hold in every scenario"
        raise file.error("method", f"{message}, found {spec.method!r}")
    if method.stepwise and spec.risk != "mean":
        raise file.error("risk", f"expected mean, which a minibatch estimates, with method {spec.method}")
    oracle: Any = method.factory(
        solver=options.solver,
        tolerance=None if options.tolerance == "auto" else options.tolerance,
        warm=options.warm,
        batch=options.batch,
        fresh=options.fresh,
        seed=spec.seed,
    )
    how = f"batches of {options.batch}" if method.stepwise else f"by {options.solver}"
    return oracle, f"{method.summary}, {how}"


def _stochastic(file: ProblemFile, natural: bool, what: str, shift: float, power: float) -> StochasticApproximation:
    """Steps without a line search; `shift` and `power` are the defaults of k0 and gamma."""
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
    """The oracle that goes through the scenarios, and a few words on it."""
    scenarios = _scenarios(file)
    batch = None if scenarios.batch == "auto" else int(scenarios.batch)
    # Bounds of the state have multipliers in every scenario of the sample.
    bounded = file.spec.bounds_state
    _check_strategy(file, scenarios.strategy, bounded)
    if scenarios.strategy == "saga":
        return SAGA(base, batch or _MINIBATCH, seed=file.spec.seed), "a table of hypergradients"
    if scenarios.strategy == "streaming":
        return Streaming(base, batch or _MINIBATCH), "fresh ones in every step"
    growing = scenarios.strategy == "growing" and scenarios.sampling != "quadrature" and not bounded
    first = min(_FIRST, batch or _FIRST) if growing else None
    return ScenarioNHGD(base, GrowthOptions(first=first)), "batches that grow" if growing else "all at once"


def _check_strategy(file: ProblemFile, strategy: str, bounded: bool) -> None:
    """Refuse minibatches for bounds of the state, and for a risk that they do not estimate."""
    if strategy not in _ESTIMATED:
        return
    if bounded:
        message = "expected growing or all with bounds of the state, which hold in every scenario of the sample"
        raise file.error("scenarios.strategy", f"{message}, found {strategy!r}")
    if not isinstance(file.spec.risk, _ESTIMATED[strategy][0]) and file.spec.risk != "mean":
        message = f"expected growing or all with a risk other than the mean{_ESTIMATED[strategy][1]}"
        raise file.error("scenarios.strategy", message)


def _scenarios(file: ProblemFile) -> ScenariosSpec:
    return file.spec.scenarios or ScenariosSpec()
