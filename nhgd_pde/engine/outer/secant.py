"""A Hessian that is known roughly, corrected by changes of gradients: BFGS updates of a given operator.

    B+ = B - (B s)(B s)^T / (s . B s) + y y^T / (y . s)

(Nocedal and Wright, 6.19), which takes the curvature along every step s from the change y of the derivative, and the
rest from the operator. Positive definite where the operator is and y . s > 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from ...linalg.safe_lengths import dot
from .base import HessianProduct


@dataclass(frozen=True)
class Secant:
    """A step (p,), the change of the derivative over it, a covector, and the product of the operator with the step."""

    step: Tensor
    change: Tensor
    product: Tensor


@dataclass(frozen=True, eq=False)
class CorrectedHessian:
    """
    Attributes:
        operator: the rough Hessian.
        updates: (B_i s_i, s_i . B_i s_i, y_i, y_i . s_i) of every secant, the oldest first.
    """

    operator: HessianProduct
    updates: tuple[tuple[Tensor, float, Tensor, float], ...]

    @classmethod
    def of(cls, operator: HessianProduct, secants: Sequence[Secant]) -> Self:
        """The corrected operator, from secants, the oldest first; secants without curvature are left out."""
        updates: list[tuple[Tensor, float, Tensor, float]] = []
        for secant in secants:
            image = _corrected(secant.product, secant.step, updates)
            old, new = dot(secant.step, image), dot(secant.step, secant.change)
            if old > 0.0 and new > 0.0:
                updates.append((image, old, secant.change, new))
        return cls(operator, tuple(updates))

    def __call__(self, d: Tensor) -> Tensor:
        return _corrected(self.operator(d), d, self.updates)


def _corrected(image: Tensor, d: Tensor, updates: Sequence[tuple[Tensor, float, Tensor, float]]) -> Tensor:
    for product, old, change, new in updates:
        image = image - (dot(product, d) / old) * product + (dot(change, d) / new) * change
    return image
