"""Which backend of the inverse Fisher information a run takes, by structure, size and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..engine.curvature.base import Curvature
from ..engine.curvature.block import Block
from ..engine.curvature.dense import Dense
from ..engine.curvature.factored import Factored
from ..engine.curvature.low_rank import LowRank
from ..linalg.memory import available_bytes
from ..problem_file.loading import ProblemFile

# Numbers that a dense inverse needs at its peak, over d^2.
_DENSE = 1.1
# Up to here a dense inverse costs less than the solves that a structured one would take.
_SMALL = 2_000


@dataclass(frozen=True)
class Choice:
    """A backend, its name, and where `auto` chose it, why."""

    backend: Curvature
    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} curvature" + (f" (auto: {self.reason})" if self.reason else "")


def choose_curvature(file: ProblemFile, shape: tuple[int, int], sampled: bool, device: torch.device) -> Choice:
    """The backend that a file asks for.

    Args:
        file: the problem file.
        shape: (S, n) of the inner variables.
        sampled: the inner loop draws its tests, so that there are scores.
        device: where the inverse will be.

    Raises:
        ProblemError: a backend that needs scores where there are none, or more memory than there is.
    """
    spec = file.spec.curvature
    scenarios, n = shape
    kind, reason = str(spec.kind), ""
    if kind == "auto":
        kind, reason = _automatic(shape, sampled, device)
    if kind != "factored" and not sampled:
        raise file.error("inner.tests", f"expected a number: a {kind} inverse is made from sampled tests, found 'all'")
    weight = None if spec.prior_weight == "auto" else float(spec.prior_weight)
    if weight is None and spec.prior == "identity":
        # A multiple of the identity knows nothing; the weight that makes F best makes its inverse worse.
        weight = 1.0
    if kind == "dense":
        _check_memory(file, scenarios * n, device)
        return Choice(Dense(spec.prior, weight, spec.forgetting), kind, reason)
    if kind == "block":
        return Choice(Block(spec.block, spec.prior, weight, spec.forgetting), kind, reason)
    if kind == "low_rank":
        if spec.prior == "identity":
            raise file.error(
                "curvature.prior", "expected riesz: low_rank corrects a structured prior, found 'identity'"
            )
        # With several scenarios the mean of their Jacobians is nearer to each of them than the Riesz map is.
        prior: Literal["riesz", "factored"] = "riesz" if scenarios == 1 else "factored"
        fading = spec.forgetting if isinstance(spec.forgetting, float) else None
        return Choice(LowRank(spec.rank, prior, weight, fading), kind, reason)
    return Choice(Factored(), kind, reason)


def dense_bytes(unknowns: int) -> float:
    """Memory that a dense inverse takes at its peak."""
    return 8.0 * _DENSE * unknowns**2


def _automatic(shape: tuple[int, int], sampled: bool, device: torch.device) -> tuple[str, str]:
    scenarios, n = shape
    d = scenarios * n
    if scenarios == 1:
        return "factored", "exact for a deterministic equation"
    if not sampled:
        return "factored", "expectations need no scores"
    if d <= _SMALL and dense_bytes(d) <= 0.5 * available_bytes(device):
        return "dense", f"{d:,} unknowns"
    return "low_rank", f"{d:,} unknowns in {scenarios:,} scenarios"


def _check_memory(file: ProblemFile, unknowns: int, device: torch.device) -> None:
    needed, there = dense_bytes(unknowns), available_bytes(device)
    if needed > there:
        rank = file.spec.curvature.rank
        message = (
            f"a dense inverse of {unknowns:,} unknowns takes {needed / 1e9:,.1f} GB ({needed:,.0f} bytes), {device} "
            f"has {there / 1e9:,.1f} GB left; factored needs sparse factors only, low_rank of rank {rank} "
            f"{16e-6 * unknowns * rank:,.0f} MB beside them"
        )
        raise file.error("curvature.kind", message)
