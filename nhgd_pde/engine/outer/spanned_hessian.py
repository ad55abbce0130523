"""A Hessian that is known along the directions of earlier products, and by a penalty everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ...linalg.conjugate_gradients import conjugate_gradients
from ...linalg.safe_lengths import dot
from .base import Feasible
from .penalty import Penalty
from .semismooth import Point, at_no_kink, towards

# A product whose share of the curvature along its direction is below this consists of rounding errors.
_ROUNDING = 1e-12
# Relative accuracy of a Newton step of the model; the next one corrects it.
_NEWTON = 0.01
_MOST_STEPS = 100
# Relative accuracy, and largest number of Newton steps, of a safe step.
_SAFE = 1e-8
_MOST_SAFE = 100
# A line search ends where the derivative is this share of that at its start, or after this number of trials.
_FLAT, _MOST_TRIALS = 0.1, 30


@dataclass(frozen=True)
class Product:
    """A direction s (p,) with <s, K s> = 1, and the product K s (p,), a covector.

    K is the part of a Hessian D + K that takes linear systems. Of two products, <s_1, K s_2> = 0.
    """

    step: Tensor
    image: Tensor


def with_product(
    products: tuple[Product, ...], step: Tensor, image: Tensor, curvature: float
) -> tuple[Product, ...] | None:
    """The products with a further one; the same where it adds nothing but rounding errors.

    None where it shows that K has negative curvature.

    Args:
        step, image: d (p,) and K d (p,).
        curvature: <d, (D + K) d>.
    """
    noise = _ROUNDING * curvature
    if not dot(step, image) >= -noise:
        return None
    # The second sweep removes the rounding errors of the first.
    for each in (*products, *products):
        share = dot(each.image, step)
        step, image = step - share * each.step, image - share * each.image
    left = dot(step, image)
    if not left > noise:
        return products
    length = math.sqrt(left)
    return (*products, Product(step / length, image / length))


@dataclass(frozen=True, eq=False)
class SpannedHessian:
    """B = D + sum_i (K s_i) (K s_i)^T, the Nystroem approximation of H = D + K.

    B is exact along the directions s_i and nowhere larger than H, so that its quadratic model is a lower bound.

    Attributes:
        penalty: D.
        images: (k, p) the products K s_i.
        scale: (p,) the row sums of D over the diagonal inner product: an estimate of B in other directions.
    """

    penalty: Penalty
    images: Tensor
    scale: Tensor

    @classmethod
    def of(cls, mass: Tensor, penalty: Penalty, products: Sequence[Product]) -> Self:
        images = torch.stack([each.image for each in products]) if products else mass.new_zeros(0, len(mass))
        return cls(penalty, images, penalty.lumped / mass)

    def product(self, d: Tensor) -> Tensor:
        """B d (p,), a covector."""
        return self.penalty.product(d) + (self.images @ d) @ self.images

    def newton_step(self, slope: Tensor, free: Tensor) -> Tensor:
        """The step d in the free variables for which slope + B d nearly vanishes there.

        Conjugate gradients, with the row sums of D in place of D in the preconditioner (Sherman-Morrison-Woodbury).
        """
        images = self.images * free
        inverse = torch.where(free, 1.0 / self.penalty.lumped, 0.0)
        weighted = images * inverse
        one = torch.eye(len(images), dtype=slope.dtype, device=slope.device)
        # Numbers that overflow give a step that is not finite, which is refused, and no error here.
        inside = torch.linalg.cholesky_ex(one + weighted @ images.T).L

        def operator(d: Tensor) -> Tensor:
            return torch.where(free, self.penalty.product(d), 0.0) + (images @ d) @ images

        def preconditioner(r: Tensor) -> Tensor:
            return inverse * r - torch.cholesky_solve((weighted @ r)[:, None], inside)[:, 0] @ weighted

        b = torch.where(free, -slope, 0.0)
        return conjugate_gradients(operator, b, preconditioner, rtol=_NEWTON, iterations=_MOST_STEPS).solution


def majorised_step(space: Feasible, start: Point, matrix: SpannedHessian) -> Point | None:
    """The step to the minimiser of a model that is nowhere below q: with the row sums L of D in place of D.

    With y = Z (x - start), Z the products with K, its dual problem has one unknown for each product:

        max phi(y) = min_x  slope . (x - start) + |x - start|_L^2 / 2 + sum_i w_i |x_i| + y . Z (x - start) - |y|^2 / 2

    The minimum is at x(y) = prox(start - L^-1 (slope + Z^T y)), node by node, and phi is concave, with the derivative
    Z (x(y) - start) - y. Newton's method with a line search that is nearly exact finds its maximum.
    """
    images, lumped = matrix.images, matrix.penalty.lumped
    one = torch.eye(len(images), dtype=lumped.dtype, device=lumped.device)

    def at(y: Tensor) -> tuple[Tensor, Tensor]:
        """x(y), and the derivative of phi."""
        x = space.prox(start.x - (start.slope + y @ images) / lumped, space.mass / lumped)
        return x, images @ (x - start.x) - y

    y = lumped.new_zeros(len(images))
    x, slope = at(y)
    goal = _SAFE * float(slope.norm())
    for _ in range(_MOST_SAFE):
        if not float(slope.norm()) > goal:
            break
        weighted = images * torch.where(at_no_kink(space, x), 1.0 / lumped, 0.0)
        step = torch.linalg.solve_ex(one + weighted @ images.T, slope).result
        y, x, slope = _highest(at, y, step, float(slope @ step))
    return towards(space, start, x, matrix)


def _highest(
    at: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, step: Tensor, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The point y + t step, t <= 1, at which a concave function is nearly largest, x there, and the derivative there.

    `rate` > 0 is the derivative along the step at t = 0. The secant of derivatives along the step (the Illinois method)
    finds t.
    """
    low, at_low, high, at_high = 0.0, rate, 1.0, 0.0
    share, side = 1.0, 0
    for _ in range(_MOST_TRIALS):
        x, slope = at(y + share * step)
        found = float(slope @ step)
        if abs(found) <= _FLAT * rate or (share == 1.0 and found > 0.0):
            break
        if found > 0.0:
            low, at_low, at_high, side = share, found, at_high * (0.5 if side > 0 else 1.0), 1
        else:
            high, at_high, at_low, side = share, found, at_low * (0.5 if side < 0 else 1.0), -1
        share = low + (high - low) * at_low / (at_low - at_high)
    return y + share * step, x, slope
