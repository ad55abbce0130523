"""From a checked problem file to the method that solves it: oracle, outer method, stopping rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..engine.curvature.dense import Dense
from ..engine.inner_loop import InnerOptions
from ..engine.loop import Stopping
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.oracle import Oracle, SecondOrderOracle
from ..engine.outer.adam import Adam
from ..engine.outer.base import Feasible, OuterMethod
from ..engine.outer.gradient import GradientDescent
from ..engine.outer.lbfgs import LBFGS
from ..engine.outer.mma import MMA
from ..engine.outer.newton_cg import NewtonCG
from ..engine.outer.oc import OC, Smoothing
from ..engine.scenarios.growth import GrowthOptions
from ..methods.adjoint import Adjoint
from ..methods.registry import METHODS, OVER_SCENARIOS
from ..problem_file.constraint_spec import StateSpec
from ..problem_file.control_spec import ConductivityControl, DensityControl, LogConductivityControl
from ..problem_file.loading import ProblemFile
from ..problem_file.pde_spec import NavierStokesSpec
from .backend import Choice, choose_curvature
from .judges import judge_of
from .scenario_method import compared_over_scenarios, over_scenarios

# A batch of the sampled inner loop where the file does not say: large enough for matrix products to be efficient.
_TESTS = 64
_SAMPLED_STEPS = 400
_EXPECTED_STEPS = 50
# Of state and adjoint where the control is a density. Residuals are measured in the energy of the first design, in
# which void counts as much as material: what is left there is up to the contrast of both times larger in energy.
_DENSITY_TOLERANCE = 1e-9
# Of a density, at which optimality criteria and moving asymptotes stop (Andreassen et al. 2011).
_CHANGE = 0.01
# Of L-BFGS. With fewer pairs than iterations, directions lose what makes them conjugate.
_LEAST_PAIRS, _MOST_PAIRS = 20, 100
_PAIRS_BYTES = 64 * 2**20
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
    outer = _outer(file, space, smoothing)
    if spec.parameters:
        oracle, outer, description = over_scenarios(file, oracle, outer, description)
    if smoothing is not None and not isinstance(outer, OC):
        message = f"expected oc, which alone takes a sensitivity filter, found {spec.outer.method!r}"
        raise file.error("outer.method", message)
    change = spec.outer.change
    if change == "auto":
        change = _CHANGE if isinstance(outer, OC) or (isinstance(outer, MMA) and _designs(file)) else None
    stopping = Stopping(spec.outer.iterations, spec.outer.rtol, spec.outer.atol, change=change)
    if spec.parameters:
        stopping = replace(stopping, roughest=GrowthOptions.roughest)
    objection = outer.objection(space) if space is not None else ""
    if objection:
        raise file.error("outer.method", f"{objection}, found {spec.outer.method!r}")
    if outer.second_order and not isinstance(oracle, SecondOrderOracle):
        message = f"expected auto, gradient, adam, lbfgs, mma or oc: {spec.method} has no products with a Hessian"
        raise file.error("outer.method", f"{message}, found {spec.outer.method!r}")
    # The first nodes of a quadrature do not stand for all, and bounds of the state have multipliers in every scenario.
    quadrature = spec.scenarios is not None and spec.scenarios.sampling == "quadrature"
    judge = judge_of(oracle, quadrature or any(isinstance(each, StateSpec) for each in spec.constraints))
    return Method(oracle, outer, stopping, description, None if parallel else 1, judge)


def _outer(file: ProblemFile, space: Feasible | None, smoothing: Smoothing | None) -> OuterMethod:
    spec, compared = file.spec.outer, METHODS.get(file.spec.method)
    step = None if spec.step == "auto" else float(spec.step)
    tracking = compared is not None and compared.tracking
    name = spec.method
    if name == "auto":
        constrained = space is not None and space.constraint is not None
        # Over scenarios nhgd alone has products with a Hessian: that of the nominal one.
        newton = (
            file.spec.method == "nhgd"
            if file.spec.parameters
            else compared is None and (_steep(file) or _coefficient(file) or _convective(file))
        )
        design: Literal["mma", "oc"] = "mma" if smoothing is None else "oc"
        name = design if constrained else "gradient" if tracking else "newton_cg" if newton else "lbfgs"
    if name == "lbfgs":
        return LBFGS(_pairs(space) if spec.memory == "auto" else spec.memory, step)
    if name == "newton_cg":
        return NewtonCG(step)
    if name == "mma":
        return MMA() if spec.move == "auto" else MMA(move=spec.move)
    if name == "oc":
        return OC(smoothing=smoothing) if spec.move == "auto" else OC(move=spec.move, smoothing=smoothing)
    if name == "adam":
        return Adam(step)
    return GradientDescent(step, search=not tracking)


def _steep(file: ProblemFile) -> bool:
    """There is a term that is too curved for secants: the penalty of a state constraint, a total variation, or a
    penalised gradient beside bounds, with which steps have to be taken in L2, where its curvature has no bound.

    To Newton's method none of these is an obstacle.
    """
    spec = file.spec
    norms = {getattr(term, "norm", None) for term in spec.objective if getattr(term, "weight", 0.0) != 0.0}
    bounded = any(bound is not None for each in spec.controls for bound in each.bounds) and not _designs(file)
    constrained = any(isinstance(each, StateSpec) for each in spec.constraints)
    return constrained or "tv" in norms or ("h1" in norms and bounded)


def _coefficient(file: ProblemFile) -> bool:
    """A control is a conductivity: an inversion.

    With little regularisation secants do not learn its Hessian in any reasonable number of iterations; products with it
    do, and cost fewer factorisations throughout (docs/verification.md has the figures).
    """
    return any(isinstance(each, ConductivityControl | LogConductivityControl) for each in file.spec.controls)


def _convective(file: ProblemFile) -> bool:
    """The state is a flow that carries itself.

    Every iteration of L-BFGS makes the difference that rounding errors have made of two runs about seven times larger;
    Newton's method takes a tenth of the iterations and half of the time (docs/verification.md, "Units").
    """
    return isinstance(file.spec.pde, NavierStokesSpec)


def _pairs(space: Feasible | None) -> int:
    """How many pairs L-BFGS remembers: what takes little memory, each being three vectors."""
    fit = _PAIRS_BYTES // (3 * 8 * space.metric.matrix.shape[0]) if space is not None else _LEAST_PAIRS
    return min(max(fit, _LEAST_PAIRS), _MOST_PAIRS)


def _designs(file: ProblemFile) -> bool:
    """A control is the density of a material."""
    return any(isinstance(each, DensityControl) for each in file.spec.controls)


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
    default = _DENSITY_TOLERANCE if _designs(file) else None
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
