"""The quadratic model of the reduced objective, and its approximate minimiser: between bounds, with an l1 term.

    q(d) = h . d + d . H d / 2 + sum_i w_i (|v_i + d_i| - |v_i|),   lower <= v + d <= upper

H is known by its products only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from ...linalg.conjugate_gradients import conjugate_gradients
from ...linalg.krylov import KrylovResult
from ...linalg.safe_lengths import dot
from .base import Feasible, HessianProduct
from .lbfgs import LBFGS
from .reduced_objective import Evaluation

# The gradient of the model is always reduced by at least this factor, whatever the estimate of rounding errors is.
_LEAST_REDUCTION = 0.1
# The share of the goal of the run that the gradient of the model may be; the rest is for what the model leaves out.
_GOAL = 0.3
# Number of pairs of the minimisation between kinks; products with H cost more than all of them.
_MEMORY = 40


@runtime_checkable
class LeastSquaresHessian(Protocol):
    """A `HessianProduct` with a part without negative curvature where the objective is convex in state and control."""

    def __call__(self, d: Tensor) -> Tensor: ...
    def gauss_newton(self, d: Tensor) -> Tensor:
        """The product of that part with d (p,)."""
        ...


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
    space: Feasible, best: Evaluation, hessian: HessianProduct, forcing: float, iterations: int, far: bool = False
) -> ModelStep:
    """A step that reduces the gradient of q by the factor `forcing`, or until a direction has no positive curvature.

    It takes at most `iterations` products with H. Without kinks, the Riesz map of the space is the preconditioner, and
    `far` from an optimum the Gauss-Newton part of H takes its place, if H has one.
    """
    first = space.stationarity(best)
    if first > 0.0:
        # A model need not be solved better than the rounding errors of the gradient allow.
        forcing = max(forcing, min(best.rounding / first, _LEAST_REDUCTION))
        # Nor better than the goal of the run asks.
        forcing = max(forcing, min(_GOAL * space.goal / first, _LEAST_REDUCTION))
    if space.smooth:
        return _without_kinks(space, best, hessian, forcing, iterations, far)
    return _between_kinks(space, best, hessian, forcing, iterations)


def _between_kinks(
    space: Feasible, best: Evaluation, hessian: HessianProduct, forcing: float, iterations: int
) -> ModelStep:
    """L-BFGS with exact steps, each of which takes one product with H; all faces learn from the products in any."""
    inside, method = replace(space, quadratic=True), LBFGS(_MEMORY, space.unit)
    start = replace(best, value=space.l1(best.v), state_error=0.0, adjoint_error=0.0)
    state = method.init(inside, start)
    first = left = space.stationarity(best)
    for _ in range(iterations):
        if not left > forcing * first or state.failure:
            break
        current = state.best
        point, state = method.propose(inside, state)
        step = point - current.v
        image = hessian(step)
        curvature = dot(step, image)
        slope = current.derivative + image
        value = current.value + space.rate(current.derivative, current.v, point) + 0.5 * curvature
        reached = replace(start, v=point, value=value, derivative=slope, gradient=slope / space.mass)
        # This also catches products that are not finite.
        if not curvature > 0.0:
            if value < current.value and current.v is not best.v:
                return ModelStep(point, _share(space.stationarity(reached), first))
            break
        state = method.update(inside, state, reached)
        left = space.stationarity(state.best)
    return ModelStep(state.best.v, _share(left, first))


def _without_kinks(
    space: Feasible, best: Evaluation, hessian: HessianProduct, forcing: float, iterations: int, far: bool
) -> ModelStep:
    """Conjugate gradients for H d = -h, with the Gauss-Newton part of H far from an optimum.

    Where a direction has no positive curvature, the other one of the two is tried. Along the directions before such a
    one H is often nearly singular, so that a step that ends there would be far too long.
    """

    def riesz(slope: Tensor) -> Tensor:
        return space.metric.gradient(slope[None])[0]

    def solved(operator: HessianProduct) -> KrylovResult:
        return conjugate_gradients(operator, -best.derivative, riesz, None, forcing, iterations, known=-best.gradient)

    operators = [hessian]
    if isinstance(hessian, LeastSquaresHessian):
        operators.insert(0 if far else 1, hessian.gauss_newton)
    results = []
    for operator in operators:
        results.append(solved(operator))
        if results[-1].converged or results[-1].iterations >= iterations:
            return ModelStep(best.v + results[-1].solution, results[-1].error)
    # The step of the Hessian itself, up to the direction without positive curvature.
    found = results[operators.index(hessian)]
    return ModelStep(best.v + found.solution, found.error)


def _share(left: float, first: float) -> float:
    return left / first if first > 0.0 else 0.0
