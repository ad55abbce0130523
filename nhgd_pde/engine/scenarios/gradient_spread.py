"""The standard deviation of the hypergradients of some scenarios, in the norm of gradients."""

from __future__ import annotations

import math

from torch import Tensor

from ...linalg.riesz import RieszMap


def deviation(metric: RieszMap, rows: Tensor) -> float:
    """Standard deviation of covectors (b, p) in the norm of gradients; takes one Riesz map. Infinite for b < 2."""
    count = rows.shape[0]
    if count < 2:
        return math.inf
    rest = rows - rows.mean(0)
    return deviation_of(metric, metric.dual_norm_estimate(rest), alternating(rest), count)


def alternating(rest: Tensor, first: int = 0) -> Tensor:
    """(p,) the sum of rows (b, p) with alternating signs; `first` is the number of the first one."""
    signs = rest.new_ones(len(rest))
    signs[1 - first % 2 :: 2] = -1.0
    return signs @ rest


def deviation_of(metric: RieszMap, length: float, typical: Tensor, count: int) -> float:
    """Standard deviation of `count` covectors in the norm of gradients, from their differences from their mean.

    The norm of all differences by the diagonal, `length`, takes no solve. It is wrong by a factor that depends on the
    smoothness of covectors; the factor of their sum with alternating signs, `typical` (p,), is used for all.
    """
    rough = length / math.sqrt(count - 1)
    if metric.diagonal or not rough > 0.0:
        return rough
    estimate = metric.dual_norm_estimate(typical[None])
    return rough * metric.dual_norm(typical[None]) / estimate if estimate > 0.0 else rough
