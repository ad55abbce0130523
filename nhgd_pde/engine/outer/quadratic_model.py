"""The quadratic model of the reduced objective, and its approximate minimiser between the bounds.

    q(d) = h . d + d . H d / 2,   lower <= v + d <= upper
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...linalg.krylov import dot
from .base import Evaluation, Feasible, HessianProduct

# Of the gradient of the model, in one face: more is wasted on a face that is not the last.
_FACE_REDUCTION = 0.1


@dataclass(frozen=True)
class ModelStep:
    """
    Attributes:
        direction: (p,) from v; zero where the first direction tried has no positive curvature.
        reduction: norm of the model's (projected) gradient there, relative to that at v.
    """

    direction: Tensor
    reduction: float


@dataclass(frozen=True)
class _Move:
    """A step d, its product H d, and whether a direction without positive curvature ended it."""

    step: Tensor
    image: Tensor
    curved: bool


def minimise_model(
    space: Feasible, best: Evaluation, hessian: HessianProduct, forcing: float, iterations: int
) -> ModelStep:
    """A step that reduces the gradient of q by the factor `forcing`, or as far as its curvature is positive.

    Args:
        space: the inner product, whose Riesz map is the preconditioner, and bounds.
        best: v, h and its Riesz representative.
        hessian: products with H.
        forcing: the reduction wanted.
        iterations: most conjugate gradient steps.
    """
    if space.bounds is None:
        first = _dual_norm(best.derivative, best.gradient)
        move = _conjugate_gradients(space, hessian, best.derivative, None, forcing * first, iterations)
        left = best.derivative + move.image
        return ModelStep(move.step, _share(_dual_norm(left, space.metric.gradient(left[None])[0]), first))
    return _between_bounds(space, best, hessian, forcing, iterations)


def _between_bounds(
    space: Feasible, best: Evaluation, hessian: HessianProduct, forcing: float, iterations: int
) -> ModelStep:
    """Projected gradient steps, which find the active bounds, by turns with conjugate gradients on the free ones.

    Nocedal and Wright, Algorithm 16.5 (More and Toraldo 1991, SIAM J. Optim. 1). A step that bounds have cut
    short is followed by the exact minimiser on the way to it, so that q falls throughout.
    """
    # The point itself, not the step to it, so that a bound is met exactly.
    v, slope = best.v, best.derivative
    first = left = space.stationarity(best)
    products = 0
    while left > forcing * first and products < iterations:
        before = products
        for limit in (1, iterations - products):
            free = space.free(v, slope)
            gradient = space.metric.gradient(slope[None])[0]
            goal = _FACE_REDUCTION * _dual_norm(slope, gradient if free is None else torch.where(free, gradient, 0.0))
            counted = _Counted(hessian)
            move = _conjugate_gradients(space, counted, slope, free, max(goal, 0.5 * forcing * first), limit)
            v, image = _cut(space, v, slope, move, counted)
            slope = slope + image
            products += counted.count
            if move.curved:
                break
        left = space.metric.norm((v - space.project(v - space.metric.gradient(slope[None])[0]))[None])
        if move.curved or products == before:
            break
    return ModelStep(v - best.v, _share(left, first))


def _cut(
    space: Feasible, start: Tensor, slope: Tensor, move: _Move, hessian: HessianProduct
) -> tuple[Tensor, Tensor]:
    """Where a move ends that stays between the bounds, and the product of H with the way there."""
    end = start + move.step
    inside = space.project(end)
    if torch.equal(inside, end):
        return end, move.image
    descent = dot(slope, inside - start)
    if descent < 0.0:
        image = hessian(inside - start)
        curvature = dot(inside - start, image)
        share = -descent / curvature if curvature > 0.0 else 1.0
        if share >= 1.0:
            return inside, image
        return space.project(start + share * (inside - start)), share * image
    # Up to the first bound q falls all the way.
    shares = torch.where(move.step != 0.0, (inside - start) / move.step, 1.0)
    share = float(shares.min())
    return torch.where(shares <= share, inside, start + share * move.step), share * move.image


@dataclass
class _Counted:
    """A product with the Hessian that is counted."""

    hessian: HessianProduct
    count: int = 0

    def __call__(self, d: Tensor) -> Tensor:
        self.count += 1
        return self.hessian(d)


def _conjugate_gradients(
    space: Feasible, hessian: HessianProduct, slope: Tensor, free: Tensor | None, goal: float, iterations: int
) -> _Move:
    """Steps on q in the free variables from a point where its derivative is `slope`, to a gradient of norm `goal`."""

    def masked(x: Tensor) -> Tensor:
        return x if free is None else torch.where(free, x, 0.0)

    step, image = torch.zeros_like(slope), torch.zeros_like(slope)
    gradient = masked(space.metric.gradient(slope[None])[0])
    direction, squared = -gradient, dot(slope, gradient)
    for _ in range(iterations):
        if not squared > goal**2:
            break
        bent = hessian(direction)
        curvature = dot(direction, bent)
        # Also where the product is not a number.
        if not curvature > 0.0:
            return _Move(step, image, True)
        length = squared / curvature
        step, image = step + length * direction, image + length * bent
        residual = slope + image
        gradient = masked(space.metric.gradient(residual[None])[0])
        before, squared = squared, dot(residual, gradient)
        direction = squared / before * direction - gradient
    return _Move(step, image, False)


def _dual_norm(derivative: Tensor, gradient: Tensor) -> float:
    return math.sqrt(max(dot(derivative, gradient), 0.0))


def _share(left: float, first: float) -> float:
    return left / first if first > 0.0 else 0.0
