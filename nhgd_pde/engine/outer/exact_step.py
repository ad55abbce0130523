"""Exact steps of quadratic objectives, and what they leave."""

from __future__ import annotations

from dataclasses import replace

from .base import Feasible
from .line_search import exact_share
from .reduced_objective import Evaluation, blend

# If the minimiser lies beyond 0.8 of the full step, take the full step: variables then sit exactly on bounds and zeros.
_ALMOST = 0.8
# The next step is never expected to shrink the gradient by more than this factor.
_LEAST_REDUCTION = 0.05


def share_between_kinks(slope: float, curvature: float) -> float | None:
    """The best share of a step to the minimiser of a model, from the slope at its start and the curvature along it.

    The share is at most the minimiser of the model, and exactly this where it is almost the best: variables are
    exactly at bounds and zeros there. An l1 term, which is convex, is estimated from above.
    """
    share = exact_share(slope, slope + curvature)
    return share if share is None or share < _ALMOST else 1.0


def blend_with_l1(space: Feasible, a: Evaluation, b: Evaluation, share: float) -> Evaluation:
    """Like `blend`, for values with the l1 term."""
    mixed = blend(a, b, share)
    if space.weights is None:
        return mixed
    value = (1.0 - share) * space.l1(a.v) + share * space.l1(b.v)
    return replace(mixed, value=mixed.value - value + space.l1(mixed.v))


def expected_reduction(space: Feasible, before: Evaluation, after: Evaluation) -> float:
    """The expected reduction of the gradient by the next step, which is that of the last one.

    An error of a few per cent of the gradient now could be most of the gradient after this step.
    """
    first = space.stationarity(before)
    return min(max(space.stationarity(after) / first, _LEAST_REDUCTION), 1.0) if first > 0.0 else 1.0
