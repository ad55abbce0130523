"""Which oracle evaluates the objective and its derivative of one scenario, the only or the nominal one."""

from __future__ import annotations

from typing import Any

import torch

from ..engine.curvature.factored import Factored
from ..engine.inner_loop import InnerOptions
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Oracle
from ..engine.scales import ScalesOracle
from ..methods.adjoint import Adjoint
from ..methods.compared_method import Compared
from ..problem_file.catalogue import EVOLUTION_METHODS, METHODS, SCENARIO_METHODS, found_at
from ..problem_file.loading import ProblemFile
from .backend import Choice, choose_curvature, draws_samples
from .outer_method import has_design

# Defaults of the inner loop. A batch of this many sampled tests makes matrix products efficient.
_TESTS = 64
_SAMPLED_STEPS = 400
_EXPECTED_STEPS = 50
# Relative tolerance of state and adjoint where the control is a density. Residuals are measured in the energy of the
# first design, in which void counts as much as material. The energy of an error may therefore be larger by the contrast
# of both.
_DENSITY_TOLERANCE = 1e-9


def choose_oracle(file: ProblemFile, shape: tuple[int, int], device: torch.device) -> tuple[Oracle[Any, Any], str]:
    """The oracle that a file asks for, and a few words on it for people.

    Args:
        file: the problem file.
        shape: (S, n) of the inner variables.
        device: where the inverse will be.

    Raises:
        ProblemError: options that the method does not take, or a dense inverse that is too large for the device.
    """
    spec = file.spec
    if spec.state is not None:
        from .neural import neural_states

        return neural_states(file, shape, device)
    if spec.passes_steps and spec.method != "fds":
        from ..methods.recomputing import Recomputing

        return Recomputing(), Recomputing.summary
    if spec.method == "nhgd":
        nhgd, choice = _nhgd(file, shape, device)
        tests = f", {nhgd.inner.tests} tests a batch" if nhgd.inner.tests is not None else ""
        return nhgd, f"{choice}{tests}" + ("" if nhgd.hypergradient.refine else ", no refinement")
    if spec.method == "adjoint":
        return Adjoint(), "exact adjoint"
    if spec.method in SCENARIO_METHODS:
        from .scenario_method import compared_over_scenarios

        return compared_over_scenarios(file)
    return _compared(file)


def judge_of(oracle: Oracle[Any, Any]) -> Oracle[Any, Any] | None:
    """The oracle that judges whether the start is a solution; None where the oracle of the run can tell."""
    sampled = isinstance(oracle, NHGD) and oracle.inner.tests is not None
    exact = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    return exact if sampled or not isinstance(oracle, ScalesOracle) else None


def _compared(file: ProblemFile) -> tuple[Oracle[Any, Any], str]:
    spec = file.spec
    method: type[Compared] = found_at({**METHODS, **EVOLUTION_METHODS}[spec.method])
    if method.stochastic and spec.inner.tests == "all":
        raise file.error("inner.tests", f"expected a number: {spec.method} draws samples, found 'all'")
    tests = spec.inner.tests if isinstance(spec.inner.tests, int) else _TESTS
    options = {
        "steps": spec.hypergradient.steps,
        "inner_step": spec.inner.step,
        "linear_step": spec.hypergradient.step,
        "seed": spec.seed,
        "inner_steps": spec.inner.steps,
    }
    oracle: Any = method.factory(tests, **{name: None if value == "auto" else value for name, value in options.items()})
    return oracle, method.summary


def _nhgd(file: ProblemFile, shape: tuple[int, int], device: torch.device) -> tuple[NHGD, Choice]:
    sampled = draws_samples(file)
    choice = choose_curvature(file, shape, sampled, device)
    default = _DENSITY_TOLERANCE if has_design(file) else None
    restart = file.spec.curvature.restart == "outer"
    if restart and not choice.backend.sampled:
        message = f"expected never: a {choice.name} inverse belongs to one point, and no score is left in it"
        raise file.error("curvature.restart", f"{message}; found 'outer'")
    inner, hypergradient = _inner_loop(file, sampled, default), _hypergradient(file, default)
    return (
        NHGD(inner, choice.backend, hypergradient, file.spec.seed, restart),
        choice,
    )


def _inner_loop(file: ProblemFile, sampled: bool, tolerance: float | None) -> InnerOptions:
    spec = file.spec.inner
    tests = spec.tests if isinstance(spec.tests, int) else _TESTS
    steps = _SAMPLED_STEPS if sampled else _EXPECTED_STEPS
    return InnerOptions(
        tests=tests if sampled else None,
        steps=steps if spec.steps == "auto" else spec.steps,
        tolerance=tolerance if spec.tolerance == "auto" else spec.tolerance,
        optimiser=spec.optimiser,
        metric=spec.metric,
        schedule="paper" if spec.step == "auto" else spec.step,
        keep_cross=file.spec.hypergradient.cross == "running",
        lag=file.spec.curvature.lag,
    )


def _hypergradient(file: ProblemFile, tolerance: float | None) -> HypergradientOptions:
    spec = file.spec.hypergradient
    return HypergradientOptions(
        refine=spec.refine != "off",
        debias=spec.debias,
        tolerance=spec.refine if isinstance(spec.refine, float) else tolerance,
        steps=HypergradientOptions.steps if spec.steps == "auto" else spec.steps,
        cross=spec.cross,
    )
