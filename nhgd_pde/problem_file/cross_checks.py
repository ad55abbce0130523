"""What the sections of a problem file have to be together, after each of them has been checked alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from nhgd_pde.problem_file.catalogue import SEARCHES
from nhgd_pde.problem_file.control_spec import ParameterControl
from nhgd_pde.problem_file.inference_spec import inference_complaints
from nhgd_pde.problem_file.placement_spec import placement_complaints
from nhgd_pde.problem_file.population_spec import population_complaints

Place = tuple[str | int, ...]
Complaints = Iterator[tuple[Place, str]]

# The steady equation of an evolution, and the evolution of a steady equation, by their kinds.
STEADY = {"heat": "poisson", "allen_cahn": "semilinear", "wave": "helmholtz"}
EVOLUTIONS = {"poisson": "heat", "semilinear": "allen_cahn", "helmholtz": "wave"}


def complaints_between(spec: Any, left_out: Collection[Place] = ()) -> Complaints:
    """Places in the file and messages, from the checks that do not look at values that have been left out."""
    for keys, check in CHECKS:
        if not any(_looks_at(key, place) for key in keys for place in left_out):
            yield from check(spec)


def _looks_at(key: str, place: Place) -> bool:
    """Whether a check of a key looks at a place: it is the key or above it, or for `key.*` below it."""
    parts = tuple(key.removesuffix(".*").split("."))
    return parts[: len(place)] == place or (key.endswith(".*") and place[: len(parts)] == parts)


def _times(spec: Any) -> Complaints:
    kind, evolves = spec.pde.kind, spec.pde.evolves
    if evolves == "always" and spec.time is None:
        steady = f", or pde.kind: {STEADY[kind]}, which is steady" if kind in STEADY else ""
        way = f"write time: {{end: 1, steps: 20}} with your numbers{steady}"
        yield ("time",), f"missing; an equation of kind {kind} evolves in time: {way}"
    elif evolves == "never" and spec.time is not None:
        own = EVOLUTIONS.get(kind)
        way = f"pde.kind: {own}, which does" if own else "a weak form of your own (pde.python)"
        yield ("time",), f"an equation of kind {kind} does not evolve in time: take time out, or write {way}"


def _random(spec: Any) -> Complaints:
    if not spec.parameters:
        for key in ("scenarios", "risk"):
            if getattr(spec, key) is not None:
                yield (key,), "expected none without parameters, which are what is random"


def _names(spec: Any) -> Complaints:
    """Controls that are parameters, random inputs and data cannot share a name."""
    controlled = {each.name for each in spec.controls if isinstance(each, ParameterControl)}
    for section in ("parameters", "data"):
        for name in getattr(spec, section):
            if name in controlled:
                yield (section, name), "the name is taken: a control of kind parameter has it"
            elif section == "data" and name in spec.parameters:
                yield (section, name), "the name is taken: a random input under parameters has it"


def _weights_of_risk(spec: Any) -> Complaints:
    """Sparse quadratures have negative weights, which are not probabilities."""
    scenarios = spec.scenarios
    sparse = scenarios is not None and scenarios.sampling == "quadrature" and scenarios.rule != "tensor"
    if sparse and spec.risk != "mean":
        yield ("risk",), "expected mean with a sparse quadrature, whose weights may be negative; take rule: tensor"


def _stable_elements(spec: Any) -> Complaints:
    if spec.element == "P1" and spec.pde.mixed:
        message = f"expected P2 or none: {spec.pde.kind} takes P2 velocities and P1 pressures; found 'P1'"
        yield ("element",), message


def _searched(spec: Any) -> Complaints:
    if spec.method in SEARCHES:
        yield from population_complaints(spec)


def _adapted(spec: Any) -> Complaints:
    """What cannot go with meshes that change from one solve to the next."""
    if spec.mesh.adapt is None:
        return
    reasons = (
        (spec.time is not None, "time", "a steady problem: the error of steps in time is not estimated"),
        (spec.parameters, "parameters", "no random inputs: the error is not estimated in every scenario"),
        (spec.state is not None, "state", "no network: the error of its training is not that of a mesh"),
        (spec.method in SEARCHES, "method", "a method that starts from one control, such as nhgd"),
        (spec.bounds_state, "constraints", "no bounds of the state: their error is not estimated"),
    )
    for wrong, key, expected in reasons:
        if wrong:
            yield (key,), f"with mesh.adapt expected {expected}"


def _inferred(spec: Any) -> Complaints:
    if spec.inference is not None:
        yield from inference_complaints(spec)


def _placed(spec: Any) -> Complaints:
    if spec.placement is not None:
        yield from placement_complaints(spec)


CHECKS: tuple[tuple[tuple[str, ...], Callable[[Any], Complaints]], ...] = (
    (("pde.kind", "time"), _times),
    (("parameters.*", "scenarios", "risk"), _random),
    (("parameters.*", "data.*", "control.*"), _names),
    (("parameters.*", "scenarios.*", "risk.*"), _weights_of_risk),
    (("element", "pde.kind"), _stable_elements),
    (("method", "parameters.*", "state.*", "constraints.*", "control.*"), _searched),
    (("mesh.*", "time", "parameters.*", "state", "method", "constraints.*"), _adapted),
    (("inference.*", "method", "objective.*", "control.*", "constraints.*", "parameters.*", "time.*"), _inferred),
    (("placement.*", "inference.*", "time.*"), _placed),
)
"""The keys that a check looks at, with `.*` if also at what is in them, and the check."""
