"""From a checked problem file to the method that solves it: oracle, outer method, stopping rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..engine.curvature.dense import Dense
from ..engine.inner_loop import InnerOptions
from ..engine.loop import Stopping
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Oracle
from ..engine.outer.base import Feasible, OuterMethod, Setting, Smoothing
from ..engine.scenarios.growth import GrowthOptions
from ..methods.adjoint import Adjoint
from ..methods.registry import METHODS, OVER_SCENARIOS
from ..problem_file.constraint_spec import StateSpec
from ..problem_file.loading import ProblemFile
from .backend import Choice, choose_curvature
from .judges import judge_of
from .outer_method import check_outer, choose_outer, has_design
from .scenario_method import compared_over_scenarios, over_scenarios

# A batch of the sampled inner loop where the file does not say: large enough for matrix products to be efficient.
_TESTS = 64
_SAMPLED_STEPS = 400
_EXPECTED_STEPS = 50
# Of state and adjoint where the control is a density. Residuals are measured in the energy of the first design, in
# which void counts as much as material: what is left there is up to the contrast of both times larger in energy.
_DENSITY_TOLERANCE = 1e-9
# From here the products of a dense inverse are long enough for more than one thread. Nothing else is: factorisations
# and the solves with them, which take most of the time of other inverses, have one thread.
_PARALLEL_DENSE = 2_000


@dataclass(frozen=True)
class Method:
    """Everything that `minimise` needs besides the problem.

    Attributes:
        oracle: how the objective and its derivative are found.
        outer: how the control moves.
        stopping: when to stop.
        description: a few words for people.
        threads: most threads of torch that pay; None for as many as it has.
        judge: tells whether the start is a solution, where the first evaluation of the oracle cannot tell.
    """

    oracle: Oracle
    outer: OuterMethod
    stopping: Stopping
    description: str
    threads: int | None
    judge: Oracle | None = None


def build_method(
    file: ProblemFile,
    shape: tuple[int, int],
    device: torch.device,
    space: Feasible | None = None,
    smoothing: Smoothing | None = None,
) -> Method:
    """The method that a file asks for.

    Args:
        file: the problem file.
        shape: (S, n) of the inner variables.
        device: where the inverse will be.
        space: what the control moves in; None where only the inverse is asked for.
        smoothing: of the derivative, which `oc` alone takes.

    Raises:
        ProblemError: an outer method that does not take what the problem has, options that contradict each
            other, or a dense inverse that is too large for the device.
    """
    spec = file.spec
    oracle, description = _oracle(file, shape, device)
    dense = isinstance(oracle, NHGD) and isinstance(oracle.curvature, Dense)
    parallel = dense and shape[0] * shape[1] >= _PARALLEL_DENSE
    compared = METHODS.get(spec.method)
    searched = compared is None or not compared.tracking
    setting = Setting(space, smoothing, searched, has_design(file))
    outer = choose_outer(file, setting)
    if spec.parameters:
        oracle, outer, description = over_scenarios(file, oracle, outer, description)
    change = outer.standstill(setting) if spec.outer.change == "auto" else spec.outer.change
    stopping = Stopping(spec.outer.iterations, spec.outer.rtol, spec.outer.atol, change=change)
    if spec.parameters:
        stopping = replace(stopping, roughest=GrowthOptions.roughest)
    check_outer(file, outer, setting, oracle)
    # The first nodes of a quadrature do not stand for all, and bounds of the state have multipliers in every scenario.
    quadrature = spec.scenarios is not None and spec.scenarios.sampling == "quadrature"
    judge = judge_of(oracle, quadrature or any(isinstance(each, StateSpec) for each in spec.constraints))
    return Method(oracle, outer, stopping, description, None if parallel else 1, judge)


def _oracle(file: ProblemFile, shape: tuple[int, int], device: torch.device) -> tuple[Oracle, str]:
    """The oracle, and a few words on it for people."""
    spec = file.spec
    if spec.method == "nhgd":
        nhgd, choice = _nhgd(file, shape, device)
        tests = f", {nhgd.inner.tests} tests a batch" if nhgd.inner.tests is not None else ""
        return nhgd, f"{choice}{tests}" + ("" if nhgd.hypergradient.refine else ", no refinement")
    if spec.method == "adjoint":
        return Adjoint(), "exact adjoint"
    if spec.method in OVER_SCENARIOS:
        if not spec.parameters:
            message = (
                f"expected a method for one scenario, found {spec.method!r}, which goes through many: the file has no"
            )
            raise file.error("method", f"{message} parameters, which are what is random")
        return compared_over_scenarios(file)
    method = METHODS[spec.method]
    if method.stochastic and spec.inner.tests == "all":
        raise file.error("inner.tests", f"expected a number: {spec.method} draws samples, found 'all'")

    def given(value: float | str) -> float | None:
        return None if isinstance(value, str) else value

    oracle = method.factory(
        tests=spec.inner.tests if isinstance(spec.inner.tests, int) else _TESTS,
        steps=None if spec.hypergradient.steps == "auto" else spec.hypergradient.steps,
        inner_step=given(spec.inner.step),
        linear_step=given(spec.hypergradient.step),
        seed=spec.seed,
        inner_steps=None if spec.inner.steps == "auto" else spec.inner.steps,
    )
    return oracle, method.description


def _nhgd(file: ProblemFile, shape: tuple[int, int], device: torch.device) -> tuple[NHGD, Choice]:
    spec = file.spec
    kind = spec.curvature.kind
    sampled = isinstance(spec.inner.tests, int) or (
        spec.inner.tests == "auto" and kind in ("dense", "block", "low_rank")
    )
    choice = choose_curvature(file, shape, sampled, device)
    tests = spec.inner.tests if isinstance(spec.inner.tests, int) else _TESTS
    steps = spec.inner.steps if spec.inner.steps != "auto" else (_SAMPLED_STEPS if sampled else _EXPECTED_STEPS)
    default = _DENSITY_TOLERANCE if has_design(file) else None
    tolerance = default if spec.inner.tolerance == "auto" else spec.inner.tolerance
    refine, cross = spec.hypergradient.refine, spec.hypergradient.cross
    inner = InnerOptions(
        tests=tests if sampled else None,
        steps=steps,
        tolerance=tolerance,
        optimiser=spec.inner.optimiser,
        schedule="paper" if spec.inner.step == "auto" else spec.inner.step,
        keep_cross=cross == "running",
        lag=spec.curvature.lag,
    )
    hypergradient = HypergradientOptions(
        refine=refine != "off",
        tolerance=refine if isinstance(refine, float) else default,
        steps=HypergradientOptions.steps if spec.hypergradient.steps == "auto" else spec.hypergradient.steps,
        cross=cross,
    )
    return NHGD(inner, choice.backend, hypergradient, spec.seed), choice
