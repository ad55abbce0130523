"""The multiplier of one inequality."""

from __future__ import annotations

import math
from collections.abc import Callable

_FARTHEST = 1e30
_EPSILON = 2.0**-52
# Brent's method takes at most the square of the steps of bisection, which near a flat root are more than the usual 100.
_MOST_STEPS = 53**2


def find_multiplier(excess: Callable[[float], float], unit: float = 1.0) -> float:
    """The multiplier lambda >= 0 at which an inequality is satisfied, and with equality if lambda > 0.

    Args:
        excess: lambda -> the violation of the inequality, continuous and not increasing.
        unit: an order of magnitude of lambda, from which the search starts.

    Returns:
        Lambda to rounding (Brent's method); where no lambda is large enough, the largest tried.
    """
    # Loaded here, because it takes long and most solves do without it.
    import scipy.optimize

    if not excess(0.0) > 0.0:
        return 0.0
    low, high = 0.0, unit
    while excess(high) > 0.0:
        low, high = high, 10.0 * high
        if high > _FARTHEST * unit:
            return low
    # A bracket that begins at zero may hide many orders of magnitude.
    while low == 0.0 and high > unit / _FARTHEST:
        if excess(0.1 * high) > 0.0:
            low = 0.1 * high
        else:
            high = 0.1 * high
    if not math.isfinite(excess(low)) or excess(high) == 0.0:
        return high
    return float(
        scipy.optimize.brentq(excess, low, high, xtol=_EPSILON * high, rtol=4.0 * _EPSILON, maxiter=_MOST_STEPS)
    )
