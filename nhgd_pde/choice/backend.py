"""Which backend of the inverse Fisher information a run takes, by structure, size and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..engine.curvature.base import BackendOptions, LocalBackend, OptionError
from ..engine.curvature.dense import Dense
from ..engine.curvature.low_rank import LowRank
from ..linalg.memory import available_bytes
from ..problem_file.catalogue import CURVATURES, found_at
from ..problem_file.loading import ProblemFile

# Largest number of unknowns for which a dense inverse costs less than the solves with a structured inverse.
_SMALL = 2_000


@dataclass(frozen=True)
class Choice:
    """A backend, its name, and the reason where `auto` chose it."""

    backend: Any
    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} curvature" + (f" (auto: {self.reason})" if self.reason else "")


def draws_samples(file: ProblemFile) -> bool:
    """Whether the inner loop draws random test functions, from which the backend makes scores."""
    tests, kind = file.spec.inner.tests, file.spec.curvature.kind
    return isinstance(tests, int) or (tests == "auto" and kind != "auto" and found_at(CURVATURES[kind]).sampled)


def choose_curvature(file: ProblemFile, shape: tuple[int, int], sampled: bool, device: torch.device) -> Choice:
    """The backend that a file asks for.

    Args:
        file: the problem file.
        shape: (S, n) of the inner variables.
        sampled: the inner loop draws its tests, so that there are scores.
        device: where the inverse will be.

    Raises:
        ProblemError: a backend that needs scores where there are none, that does not take an option, or that needs more
            memory than there is.
    """
    spec = file.spec.curvature
    kind, reason = spec.kind, ""
    if kind == "auto":
        kind, reason = _automatic(shape, sampled, device, nominal=bool(file.spec.parameters))
    known: type[LocalBackend] = found_at(CURVATURES[kind])
    _check_layers(file, kind, known, sampled)
    if known.sampled and not sampled:
        raise file.error("inner.tests", f"expected a number: a {kind} inverse is made from sampled tests, found 'all'")
    weight = None if spec.prior_weight == "auto" else float(spec.prior_weight)
    given = getattr(spec, "lambda")
    regularisation = None if given == "auto" else float(given)
    if regularisation is not None and (kind != "dense" or spec.prior != "identity"):
        wanted = "expected auto, or a dense inverse with prior: identity"
        raise file.error("curvature.lambda", f"{wanted}; found {given:g} with {kind} and {spec.prior}")
    try:
        backend = known.of_options(
            BackendOptions(spec.prior, weight, spec.forgetting, spec.block, spec.rank, regularisation),
            scenarios=shape[0],
        )
    except OptionError as error:
        raise file.error(f"curvature.{error.option}", str(error)) from error
    _check_memory(file, kind, backend, shape[0] * shape[1], device)
    return Choice(backend, kind, reason)


def _check_layers(file: ProblemFile, kind: str, backend: type[LocalBackend], sampled: bool) -> None:
    """Refuse Kronecker factors where there are no layers, or where scores are sampled, which do not renew them."""
    if not backend.layered:
        return
    if not file.spec.layered:
        others = [name for name, place in CURVATURES.items() if not found_at(place).layered]
        message = f"expected one of auto, {', '.join(others)}: {kind} needs a task, whose classifier has layers"
        raise file.error("curvature.kind", f"{message}; found {kind!r}")
    if sampled:
        found = file.spec.inner.tests
        raise file.error("inner.tests", f"expected auto or all: a {kind} inverse takes no scores, found {found!r}")


def _automatic(shape: tuple[int, int], sampled: bool, device: torch.device, nominal: bool) -> tuple[str, str]:
    """The name of a backend, and why it is chosen; `nominal`: the equation is that of the nominal scenario."""
    scenarios, n = shape
    d = scenarios * n
    if scenarios == 1:
        return "factored", "exact for the nominal equation" if nominal else "exact for a deterministic equation"
    if not sampled:
        return "factored", "expectations need no scores"
    if d <= _SMALL and Dense().bytes(d) <= 0.5 * available_bytes(device):
        return "dense", f"{d:,} unknowns"
    return "low_rank", f"{d:,} unknowns in {scenarios:,} scenarios"


def _check_memory(file: ProblemFile, kind: str, backend: LocalBackend, unknowns: int, device: torch.device) -> None:
    needed = backend.bytes(unknowns)
    there = available_bytes(device) if needed else 0.0
    if needed > there:
        rank = file.spec.curvature.rank
        message = (
            f"a {kind} inverse of {unknowns:,} unknowns takes {needed / 1e9:,.1f} GB ({needed:,.0f} bytes), {device} "
            f"has {there / 1e9:,.1f} GB left; factored needs sparse factors only, low_rank of rank {rank} "
            f"{1e-6 * LowRank(rank).bytes(unknowns):,.0f} MB beside them"
        )
        raise file.error("curvature.kind", message)
