"""From a checked problem file to the method that solves it: oracle, outer method, stopping rule."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.curvature.base import Curvature
from ..engine.curvature.dense import Dense
from ..engine.curvature.factored import Factored
from ..engine.inner import InnerOptions
from ..engine.minimise import Oracle, Stopping
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.outer.base import OuterMethod
from ..engine.outer.gradient import GradientDescent
from ..engine.outer.lbfgs import LBFGS
from ..methods.adjoint import Adjoint
from .loading import ProblemFile

# A batch of the sampled inner loop where the file does not say: large enough for matrix products to be efficient.
_TESTS = 64
_SAMPLED_STEPS = 400
_EXPECTED_STEPS = 50
# Up to here a vector operation is too short for a second thread.
_SERIAL_UNKNOWNS = 250_000
# A dense inverse beyond this is refused: it would take over 8 GB.
_MOST_DENSE = 32_000


@dataclass(frozen=True)
class Method:
    """Everything that `minimise` needs besides the problem.

    Attributes:
        oracle: how the objective and its derivative are found.
        outer: how the control moves.
        stopping: when to stop.
        description: a few words for people.
        threads: most threads of torch that pay; None for as many as it has.
    """

    oracle: Oracle
    outer: OuterMethod
    stopping: Stopping
    description: str
    threads: int | None


def build_method(file: ProblemFile, unknowns: int) -> Method:
    """The method that a file asks for.

    Args:
        file: the problem file.
        unknowns: d, inner unknowns of all scenarios together.

    Raises:
        ProblemError: options that contradict each other, or a dense inverse that is too large.
    """
    spec = file.spec
    outer: OuterMethod
    step = None if spec.outer.step == "auto" else float(spec.outer.step)
    outer = LBFGS(spec.outer.memory, step) if spec.outer.method == "lbfgs" else GradientDescent(step)
    stopping = Stopping(spec.outer.iterations, spec.outer.rtol, spec.outer.atol)
    oracle: Oracle = Adjoint() if spec.method == "adjoint" else _nhgd(file, unknowns)
    dense = isinstance(oracle, NHGD) and isinstance(oracle.curvature, Dense)
    threads = None if dense or unknowns > _SERIAL_UNKNOWNS else 1
    return Method(oracle, outer, stopping, _description(oracle), threads)


def _description(oracle: Oracle) -> str:
    if not isinstance(oracle, NHGD):
        return "exact adjoint"
    kind = "dense" if isinstance(oracle.curvature, Dense) else "factored"
    tests = f", {oracle.inner.tests} tests a batch" if oracle.inner.tests is not None else ""
    return f"{kind} curvature{tests}" + ("" if oracle.hypergradient.refine else ", no refinement")


def _nhgd(file: ProblemFile, unknowns: int) -> NHGD:
    spec = file.spec
    kind = spec.curvature.kind
    sampled = isinstance(spec.inner.tests, int) or (spec.inner.tests == "auto" and kind == "dense")
    if kind == "auto":
        kind = "dense" if sampled and unknowns <= _MOST_DENSE else "factored"
    if kind == "dense" and not sampled:
        raise file.error("inner.tests", "expected a number: a dense inverse is made from sampled tests, found 'all'")
    if kind == "dense" and unknowns > _MOST_DENSE:
        gigabytes = 8e-9 * unknowns**2
        raise file.error("curvature.kind", f"a dense inverse of {unknowns:,} unknowns takes {gigabytes:,.0f} GB; "
                         "use factored")  # fmt: skip
    curvature: Curvature = Factored()
    if kind == "dense":
        weight = spec.curvature.prior_weight
        curvature = Dense(spec.curvature.prior, None if weight == "auto" else weight, spec.curvature.forgetting)
    tests = spec.inner.tests if isinstance(spec.inner.tests, int) else _TESTS
    steps = spec.inner.steps if spec.inner.steps != "auto" else (_SAMPLED_STEPS if sampled else _EXPECTED_STEPS)
    tolerance = None if spec.inner.tolerance == "auto" else spec.inner.tolerance
    inner = InnerOptions(tests if sampled else None, steps, tolerance, spec.inner.optimiser)
    refine = spec.hypergradient.refine
    hypergradient = HypergradientOptions(refine != "off", refine if isinstance(refine, float) else None)
    return NHGD(inner, curvature, hypergradient, spec.seed)
