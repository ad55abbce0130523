"""A first state of an equation that is too nonlinear for Newton's method from afar: by way of easier equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from ..linalg.riesz import RieszMap
from ..pde.equation import StateEquation

# Shortenings of one Newton step.
_MOST_TRIALS = 10


def followed(
    equation: StateEquation, metric: RieszMap, v: Tensor, start: Tensor, rtol: float = 1e-6, least: float = 1.0 / 64
) -> Tensor:
    """The state (S, n) at the end of the path of the equations with shares 0 to 1 of what makes them nonlinear.

    From the linear equation the first attempt is at the whole; where Newton's method fails, half the way is tried.

    Args:
        equation: with `easier`.
        metric: in which steps are measured.
        v: (p,) the control.
        start: (S, n) where the linear equation is solved from.
        rtol: relative length of the step that ends Newton's method.
        least: length of a part of the path below which the state reached is returned, which is then not a solution.
    """
    found = newton(equation.eased(0.0), metric, v, start, rtol)
    if found is None:
        return start
    u, share, target = found, 0.0, 1.0
    while share < 1.0 and target - share >= least:
        found = newton(equation.eased(target), metric, v, u, rtol)
        if found is None:
            target = 0.5 * (share + target)
        else:
            # Double the length of the last part.
            u, share, target = found, target, min(1.0, 3.0 * target - 2.0 * share)
    return u


def newton(
    equation: StateEquation, metric: RieszMap, v: Tensor, start: Tensor, rtol: float, steps: int = 15
) -> Tensor | None:
    """A root of R(., v) by damped Newton steps, or None.

    A step is long enough where the next one with the same factors is shorter (the natural monotonicity test; Deuflhard
    2011, Newton Methods for Nonlinear Problems, Section 3.3).
    """
    u, residual = start, equation.residual(start, v)
    try:
        for _ in range(steps):
            factors = equation.linearise(u, v).factors
            direction = factors.solve(residual)
            size, length = metric.norm(direction), 1.0
            if not math.isfinite(size):
                return None
            for _ in range(_MOST_TRIALS):
                candidate = u - length * direction
                residual = equation.residual(candidate, v)
                left = metric.norm(factors.solve(residual)) if torch.isfinite(residual).all() else math.inf
                if left <= (1.0 - 0.25 * length) * size or left <= rtol * metric.norm(candidate):
                    break
                length *= 0.5
            else:
                return None
            u = candidate
            if length == 1.0 and left <= rtol * metric.norm(u):
                return u
    except SingularMatrixError:
        pass
    return None
