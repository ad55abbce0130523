"""The quadratic model of the reduced objective, and its approximate minimiser: between bounds, with an l1 term.

    q(d) = h . d + d . H d / 2 + sum_i w_i (|v_i + d_i| - |v_i|),   lower <= v + d <= upper

H is known by its products only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.safe_lengths import dot
from .base import Evaluation, Feasible, HessianProduct
from .lbfgs import LBFGS

# Reduction of the model's gradient that is always asked for, whatever the rounding errors are estimated to be.
_LEAST_REDUCTION = 0.1
# Pairs that the minimisation between kinks remembers: products with H cost more than all of them.
_MEMORY = 40


@dataclass(frozen=True)
class ModelStep:
    """
    Attributes:
        end: (p,) v + d; v where the first direction tried has no positive curvature.
        reduction: stationarity of the model there, relative to that at v.
    """

    end: Tensor
    reduction: float


def minimise_model(
    space: Feasible, best: Evaluation, hessian: HessianProduct, forcing: float, iterations: int
) -> ModelStep:
    """A step that reduces the gradient of q by the factor `forcing`, or as far as its curvature is positive.

    Args:
        space: the inner product, whose Riesz map is the preconditioner, bounds and the l1 term.
        best: v, h and its Riesz representative.
        hessian: products with H.
        forcing: the reduction wanted.
        iterations: most products.
    """
    minimise = _conjugate_gradients if space.smooth else _between_kinks
    first = space.stationarity(best)
    if first > 0.0:
        # A gradient that is known up to rounding errors has no use for a model that is solved any better.
        forcing = max(forcing, min(best.rounding / first, _LEAST_REDUCTION))
    return minimise(space, best, hessian, forcing, iterations)


def _between_kinks(
    space: Feasible, best: Evaluation, hessian: HessianProduct, forcing: float, iterations: int
) -> ModelStep:
    """L-BFGS with exact steps, each of them a product with H: it learns of all faces from the products in any."""
    inside, method = replace(space, quadratic=True), LBFGS(_MEMORY, space.unit)
    start = replace(best, value=space.l1(best.v), state_error=0.0, adjoint_error=0.0)
    state = method.init(inside, start)
    first = left = space.stationarity(best)
    for _ in range(iterations):
        if not left > forcing * first or state.failure:
            break
        current = state.best
        point, state = method.propose(inside, state)
        way = point - current.v
        image = hessian(way)
        curvature = dot(way, image)
        slope = current.derivative + image
        value = current.value + space.rate(current.derivative, current.v, point) + 0.5 * curvature
        reached = replace(start, v=point, value=value, derivative=slope, gradient=slope / space.mass)
        # Also where the product is not a number.
        if not curvature > 0.0:
            if value < current.value and current.v is not best.v:
                return ModelStep(point, _share(space.stationarity(reached), first))
            break
        state = method.update(inside, state, reached)
        left = space.stationarity(state.best)
    return ModelStep(state.best.v, _share(left, first))


def _conjugate_gradients(
    space: Feasible, best: Evaluation, hessian: HessianProduct, forcing: float, iterations: int
) -> ModelStep:
    slope, gradient = best.derivative, best.gradient
    step, image = torch.zeros_like(slope), torch.zeros_like(slope)
    first = squared = dot(slope, gradient)
    direction = -gradient
    for _ in range(iterations):
        if not squared > forcing**2 * first:
            break
        bent = hessian(direction)
        curvature = dot(direction, bent)
        # Also where the product is not a number.
        if not curvature > 0.0:
            break
        length = squared / curvature
        step, image = step + length * direction, image + length * bent
        residual = slope + image
        gradient = space.metric.gradient(residual[None])[0]
        before, squared = squared, dot(residual, gradient)
        direction = squared / before * direction - gradient
    return ModelStep(best.v + step, _share(math.sqrt(max(squared, 0.0)), math.sqrt(max(first, 0.0))))


def _share(left: float, first: float) -> float:
    return left / first if first > 0.0 else 0.0
