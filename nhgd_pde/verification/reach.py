"""How far controls may move from the point of a test: within their bounds, and where the equation makes sense."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ..linalg.differences import central_difference
from ..linalg.factorisation import SingularMatrixError
from ..pde_problem import PDEProblem

# A control that is nearer to a bound than this share of its unit moves away from the bound only.
_NEAR = 0.1
# Share of the distance to the bounds that is used: directions, sums of four waves or normal numbers, may exceed one.
_SHARE = 0.2
# Number of reductions of the room by four until the equation makes sense on both sides of the point, and number after
# which one side is preferred: on shorter ways rounding errors of the control itself are too large.
_MOST, _LONG = 20, 14
# Estimated relative error at which differences have converged.
_ACCURATE = 1e-7


def makes_sense(problem: PDEProblem, u: Tensor, v: Tensor) -> bool:
    """Whether the equation has a finite residual at a state u (S, n) and controls v (p,) that are in all ranges."""
    try:
        return bool(v.isfinite().all()) and bool(problem.residual(u, v).isfinite().all())
    except SingularMatrixError:
        return False


def room_at(problem: PDEProblem, u: Tensor, v: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """How far each control may move from v, at most by its unit, and the side to which it may move.

    The bounds of the controls are never left. Beyond a bound, or beyond the edge of the range of a coefficient, nothing
    needs to make sense, so that a control there moves to the other side only.

    Returns:
        The room (p,), and the sides (p,): 1 or -1 where a control may only increase or decrease, 0 elsewhere.
    """
    lower, upper = problem.bounds or (torch.full_like(v, -math.inf), torch.full_like(v, math.inf))
    below, above = (v - lower).clamp(min=0.0), (upper - v).clamp(min=0.0)
    nearer, farther = torch.minimum(below, above), torch.maximum(below, above)
    at_bound = (nearer < _NEAR * torch.minimum(unit, farther)) & (farther > 0.0)
    side = torch.where(at_bound, torch.where(above >= below, 1.0, -1.0), torch.zeros_like(v))
    room = torch.minimum(unit, _SHARE * torch.where(at_bound, farther, nearer))
    if problem.equation.affine:
        return room, side
    for first, end in pairwise(problem.control.rows.offsets):
        own = torch.zeros_like(v)
        own[first:end] = room[first:end]
        share, turned = _share(problem, u, v, own, side)
        room[first:end] *= share
        if turned:
            side[first:end] = torch.where(side[first:end] == 0.0, turned, side[first:end])
    return room, side


def _share(problem: PDEProblem, u: Tensor, v: Tensor, room: Tensor, side: Tensor) -> tuple[float, float]:
    """The share of the room of some controls in which the equation makes sense, and the sign of the only side that has.

    The sign is 0 where there is room on both sides of v.
    """
    if not torch.count_nonzero(room):
        return 1.0, 0.0
    alone: tuple[float, float] | None = None
    for k in range(_MOST):
        share = 0.25**k
        good = [
            sign
            for sign in (1.0, -1.0)
            if makes_sense(problem, u, v + share * room * torch.where(side == 0.0, sign, side))
        ]
        if len(good) == 2:
            longer = alone is not None and alone[0] > 4.0 * share and _smooth(problem, u, v, alone[0] * alone[1] * room)
            return alone if longer and alone is not None else (share, 0.0)
        if good and alone is None:
            alone = share, good[0]
        if alone is not None and k >= _LONG:
            return alone
    return alone or (1.0, 0.0)


def _smooth(problem: PDEProblem, u: Tensor, v: Tensor, step: Tensor) -> bool:
    """Whether one-sided differences of the residual along a step away from an edge converge.

    They do not where a coefficient has a pole at the edge. Shorter steps, to both sides, are then more accurate.
    """

    def residual(t: float) -> Tensor:
        try:
            return problem.residual(u, v + t * step)
        except SingularMatrixError:
            return torch.full_like(u, math.nan)

    found = central_difference(residual, sided=True)
    return bool(found.doubt.abs().max() <= _ACCURATE * found.value.abs().max())
