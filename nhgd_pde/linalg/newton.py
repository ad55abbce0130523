"""Newton's method for a root, globalised by the length of its own corrections."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .factorisation import SingularMatrixError
from .safe_lengths import length

Map = Callable[[Tensor], Tensor]

_SHORTEST = 2.0**-12


@dataclass(frozen=True)
class Root:
    """What Newton's method found.

    Attributes:
        solution: the last iterate.
        converged: its correction is as small as was asked for.
        message: a sentence.
    """

    solution: Tensor
    converged: bool
    message: str


def newton(
    residual: Map,
    solver: Callable[[Tensor], Map],
    start: Tensor,
    rtol: float,
    iterations: int,
    norm: Callable[[Tensor], float] = lambda x: length(x, lambda unit: unit),
) -> Root:
    """Solve residual(x) = 0.

    A step d = J(x)^-1 R(x) is halved until J(x)^-1 R(x - t d) is shorter than d, the restricted natural monotonicity
    test (Deuflhard, Newton Methods for Nonlinear Problems, 2011, section 3.3): no norm of the residual is needed, and
    an iterate is never left for a worse one.

    Args:
        residual: R.
        solver: x -> a function that solves with J(x); may raise SingularMatrixError.
        start: first iterate, any shape.
        rtol: length of the correction to reach, relative to that of x.
        iterations: most steps.
        norm: of x and of corrections.
    """
    x = start
    for step in range(iterations):
        try:
            solve = solver(x)
        except SingularMatrixError as singular:
            return Root(x, False, str(singular))
        direction = solve(residual(x))
        size = norm(direction)
        if not math.isfinite(size):
            return Root(x, False, "the first residual is not finite" if step == 0 else "the Newton step is not finite")
        share = 1.0
        while True:
            candidate = x - share * direction
            correction = solve(residual(candidate))
            left = norm(correction)
            if math.isnan(left):
                left = math.inf
            if left <= (1.0 - 0.25 * share) * size:
                break
            if _small(size, rtol * norm(x)):
                return Root(x, True, f"{step} Newton steps")
            share *= 0.5
            if share < _SHORTEST:
                return Root(x, False, f"no step along the Newton direction shortens the correction {size:.1e}")
        x = candidate
        if _small(left, rtol * norm(x)):
            return Root(x - correction, True, f"{step + 1} Newton steps")
    return Root(x, False, f"{iterations} Newton steps left a correction of {left:.1e}")


def _small(size: float, goal: float) -> bool:
    """Whether a size is at most a goal; false for a goal that is not finite."""
    return size <= goal < math.inf
