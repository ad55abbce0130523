"""The minimiser of a quasi-Newton model where the objective has kinks: bounds, an l1 term.

q(d) = h . d + d . B d / 2 + sum_i w_i (|v_i + d_i| - |v_i|),   lower <= v + d <= upper
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Evaluation, Feasible
from .quasi_newton import QuasiNewton

# A little more accuracy in the model saves no evaluations.
_REDUCTION = 0.01
_MOST_ROUNDS = 50


def minimise_between_kinks(space: Feasible, best: Evaluation, matrix: QuasiNewton) -> Tensor:
    """The point v + d (p,) of a step d that reduces the stationarity of q a hundredfold, or descends.

    A semismooth Newton method (Hintermueller, Ito and Kunisch 2003, SIAM J. Optim. 13; with an l1 term Stadler 2009,
    Comput. Optim. Appl. 44): prox(x - gradient / c) says which variables will be at a kink; they are put there, and
    q is minimised in the others. Of such a step, cut off at kinks, as much is taken as is best for q, and where it
    does not descend the step of the proximal gradient method, so that q falls in every round and no two repeat.
    c is the curvature that B has in every direction that it knows nothing of.
    """
    x, slope = best.v, best.derivative
    first = left = space.stationarity(best)
    for _ in range(_MOST_ROUNDS):
        if not left > _REDUCTION * first:
            break
        target = space.prox(x - slope / (matrix.scale * space.mass), 1.0 / matrix.scale)
        end = _newton_point(space, x, slope, target, matrix)
        rate = space.rate(slope, x, end)
        if not rate < 0.0:
            end = target
            rate = space.rate(slope, x, end)
        if not rate < 0.0:
            break
        way = end - x
        image = matrix.product(way)
        share = min(1.0, -rate / float(way @ image))
        x = end if share == 1.0 else x + share * way
        slope = slope + share * image
        left = space.distance(x, slope / space.mass)
    return x


def _newton_point(space: Feasible, x: Tensor, slope: Tensor, target: Tensor, matrix: QuasiNewton) -> Tensor:
    """The minimiser of q with the variables at a kink where `target` is at one, the others cut off at kinks.

    Where variables are free q is smooth, with the signs that they are going to have.
    """
    fixed = torch.zeros_like(x, dtype=torch.bool)
    if space.bounds is not None:
        fixed = (target <= space.bounds[0]) | (target >= space.bounds[1])
    if space.weights is not None:
        fixed = fixed | ((target == 0.0) & (space.weights > 0.0))
        slope = slope + space.weights * target.sign()
    jump = torch.where(fixed, target - x, 0.0)
    end = torch.where(fixed, target, x + matrix.newton_step(slope + matrix.product(jump), ~fixed))
    if space.weights is not None:
        crossed = ~fixed & (space.weights > 0.0) & (end * target < 0.0)
        end = torch.where(crossed, 0.0, end)
    return space.project(end)
