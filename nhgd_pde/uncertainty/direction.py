"""The direction in the space of normal variables in which a function varies most, found from a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from .distributions import Distribution, Normal

# Least number of scenarios for each coefficient, and least share of the variance that the prediction explains.
_OF_EACH = 3
_LEAST_SHARE = 0.2


def main_direction(z: np.ndarray, values: np.ndarray, distributions: Sequence[Distribution]) -> np.ndarray | None:
    """The direction of the gradient of the best linear prediction of the ranks of a function's values.

    The prediction is fitted to normal scores, which are the quantiles of N(0, 1) at the ranks, because no large value
    dominates them.

    Args:
        z: (S, m) standard variables, which have the m distributions.
        values: (S,) values of the function.

    Returns:
        (m,) of length one, zero for variables that are not normal. None where there are fewer than two normal variables
        or too few scenarios, or where the fit does not predict scenarios that it leaves out: then the function varies
        in several directions or not monotonically.
    """
    normal = np.array([isinstance(one, Normal) for one in distributions], dtype=bool)
    count = len(values)
    if normal.sum() < 2 or count < _OF_EACH * (len(normal) + 1) or not np.isfinite(values).all():
        return None
    # scipy.stats takes long to load, and problems without random inputs do not need it.
    from scipy.stats import rankdata

    scores = ndtri((rankdata(values) - 0.5) / count)
    q, r = np.linalg.qr(np.column_stack([np.ones(count), z]))
    projected = q.T @ scores
    free = 1.0 - (q**2).sum(axis=1)
    total = float(scores @ scores)
    if not (total > 0.0 and free.min() > 0.0 and np.abs(np.diag(r)).min() > 1e-9 * np.abs(np.diag(r)).max()):
        return None
    left_out = float((((scores - q @ projected) / free) ** 2).sum())
    if left_out > (1.0 - _LEAST_SHARE) * total:
        return None
    found = np.where(normal, np.linalg.solve(r, projected)[1:], 0.0)
    length = float(np.linalg.norm(found))
    return np.asarray(found / length) if length > 0.0 else None
