"""The quadratic model of the reduced objective, and its approximate minimiser between the bounds.

    q(d) = h . d + d . H d / 2,   lower <= v + d <= upper

H is known by its products only.
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
class Move:
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
    """Projected gradient steps, which find and leave bounds, by turns with conjugate gradients between the bounds.

    Nocedal and Wright, Algorithm 16.5 (More and Toraldo 1991, SIAM J. Optim. 1). Conjugate gradients keep what
    is at a bound there, and go on with fewer variables each time they meet more bounds.
    """
    assert space.bounds is not None
    lower, upper = space.bounds
    counted = _Counted(hessian)
    # The point itself, not the step to it, so that a bound is met exactly.
    point = Point(best.v, best.derivative)
    first = left = space.stationarity(best)
    while left > forcing * first and counted.count < iterations:
        before = counted.count
        free = space.free(point.v, point.slope)
        move = _conjugate_gradients(space, counted, point.slope, free, 0.0, 1)
        point, _ = moved(space, point, move, counted)
        met = True
        while met and not move.curved and counted.count < iterations:
            free = (point.v > lower) & (point.v < upper)
            gradient = torch.where(free, space.metric.gradient(point.slope[None])[0], 0.0)
            goal = max(_FACE_REDUCTION * _dual_norm(point.slope, gradient), 0.5 * forcing * first)
            move = _conjugate_gradients(space, counted, point.slope, free, goal, iterations - counted.count)
            point, met = moved(space, point, move, counted)
        gradient = space.metric.gradient(point.slope[None])[0]
        left = space.metric.norm((point.v - space.project(point.v - gradient))[None])
        if move.curved or counted.count == before:
            break
    return ModelStep(point.v - best.v, _share(left, first))


@dataclass(frozen=True)
class Point:
    """A point and the derivative of q there."""

    v: Tensor
    slope: Tensor


def moved(space: Feasible, start: Point, move: Move, hessian: HessianProduct) -> tuple[Point, bool]:
    """The end of a move, within the bounds, and whether they cut it short.

    Of its projection as much is taken as is best for q; where q rises along it, the move goes to the first bound,
    up to which q falls.
    """
    end = start.v + move.step
    inside = space.project(end)
    if torch.equal(inside, end):
        return Point(end, start.slope + move.image), False
    way = inside - start.v
    descent = dot(start.slope, way)
    if descent < 0.0:
        image = hessian(way)
        curvature = dot(way, image)
        share = min(1.0, -descent / curvature) if curvature > 0.0 else 1.0
        reached = inside if share == 1.0 else space.project(start.v + share * way)
        return Point(reached, start.slope + share * image), True
    shares = torch.where(move.step != 0.0, way / move.step, 1.0)
    share = float(shares.min())
    reached = torch.where(shares <= share, inside, start.v + share * move.step)
    return Point(reached, start.slope + share * move.image), True


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
) -> Move:
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
            return Move(step, image, True)
        length = squared / curvature
        step, image = step + length * direction, image + length * bent
        residual = slope + image
        gradient = masked(space.metric.gradient(residual[None])[0])
        before, squared = squared, dot(residual, gradient)
        direction = squared / before * direction - gradient
    return Move(step, image, False)


def _dual_norm(derivative: Tensor, gradient: Tensor) -> float:
    return math.sqrt(max(dot(derivative, gradient), 0.0))


def _share(left: float, first: float) -> float:
    return left / first if first > 0.0 else 0.0
