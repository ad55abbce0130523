"""The oracle of a problem file whose state is a network."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch

from ..engine.loop import Stopping
from ..linalg.memory import available_bytes
from ..neural.neural_oracle import ARRAYS, NeuralStates
from ..problem_file.loading import ProblemFile
from ..problem_file.method_spec import CurvatureSpec, HypergradientSpec, InnerSpec
from ..problem_file.room import size_text

# The relative residual with which the state of a network counts as solved.
_TOLERANCE = 1e-2
# How many times larger the relative residual of the adjoint system may be: it has no steps of its own, and its
# right-hand side is small where the state comes near to its target.
_ADJOINT = 5.0


def neural_states(file: ProblemFile, shape: tuple[int, int], device: torch.device) -> tuple[NeuralStates, str]:
    """The oracle, and a few words on it for people.

    Raises:
        ProblemError: options that a network does not take, or a network that is too large for the memory.
    """
    spec = file.spec
    assert spec.state is not None
    if spec.method != "nhgd":
        message = f"expected nhgd with a network as the state, found {spec.method!r}"
        raise file.error("method", f"{message}: other methods take finite elements, without the key state")
    if spec.parameters:
        raise file.error("parameters", "expected none with a network as the state, which has one scenario")
    if spec.bounds_state:
        raise file.error("constraints", "expected no bounds of the state with a network as the state")
    if isinstance(spec.inner.tests, int):
        message = f"expected all with a network as the state, found {spec.inner.tests}"
        raise file.error("inner.tests", f"{message}: its inner solver takes the expectation of all tests")
    for key in ("step", "noise", "optimiser", "metric"):
        given, default = getattr(spec.inner, key), getattr(InnerSpec(), key)
        if given != default:
            message = f"expected {default}, the default, with a network as the state, found {given!r}"
            raise file.error(f"inner.{key}", f"{message}: its inner solver has no such option")
    for section, usual in (("curvature", CurvatureSpec()), ("hypergradient", HypergradientSpec())):
        if getattr(spec, section) != usual:
            message = "expected the defaults with a network as the state, whose Fisher information is inverted exactly"
            raise file.error(section, message)
    widths = (4, *spec.state.layers, 1)
    parameters = sum((a + 1) * b for a, b in pairwise(widths))
    needed, there = ARRAYS * 8.0 * parameters * shape[1], available_bytes(device)
    if needed > there:
        message = (
            f"expected a network for which {size_text(there)} are enough, found about {parameters:,} parameters for "
        )
        raise file.error("state.layers", f"{message}{shape[1]:,} unknowns, which take {size_text(needed)}")
    steps = NeuralStates.steps if spec.inner.steps == "auto" else spec.inner.steps
    layers = ", ".join(map(str, spec.state.layers))
    return NeuralStates(spec.state.layers, steps, spec.seed), f"a network with hidden layers of {layers} as the state"


def stopping_of_networks(file: ProblemFile, stopping: Stopping) -> Stopping:
    """The rule with the accuracy that is asked of networks."""
    given = file.spec.inner.tolerance
    tolerance = _TOLERANCE if given == "auto" else float(given)
    return replace(stopping, certificate=_ADJOINT * tolerance, roughest=tolerance)
