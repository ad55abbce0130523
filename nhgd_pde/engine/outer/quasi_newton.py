"""The matrix of L-BFGS, in the compact form of Byrd, Nocedal and Schnabel (1994, Math. Program. 63)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """A step (vector), the change of the derivative (covector) and of the gradient (vector) over it.

    `radius` is |step|^2 / <step, derivative>, the reciprocal of the curvature along the step.
    """

    step: Tensor
    derivative: Tensor
    gradient: Tensor
    radius: float


@dataclass(frozen=True, eq=False)
class QuasiNewton:
    """B = c M - W^T N^-1 W with a diagonal M.

    W = [c S M, Y] (2k, p) from steps S and changes of the derivative Y, one in each row, so that they lie in memory one
    after the other, and N = [[c S M S^T, L], [L^T, -D]] with L the strictly lower triangle of S Y^T and D its diagonal.

    Attributes:
        mass: (p,) the entries of M.
        scale: c.
        outer: W.
        middle: N.
    """

    mass: Tensor
    scale: float
    outer: Tensor
    middle: Tensor

    @classmethod
    def of(cls, mass: Tensor, pairs: Sequence[Pair], scale: float) -> Self:
        """The matrix of some pairs, the oldest first."""
        k = len(pairs)
        if not k:
            return cls(mass, scale, mass.new_zeros(0, len(mass)), mass.new_zeros(0, 0))
        outer = mass.new_empty(2 * k, len(mass))
        steps = torch.stack([pair.step for pair in pairs])
        torch.mul(steps, scale * mass, out=outer[:k])
        torch.stack([pair.derivative for pair in pairs], out=outer[k:])
        # (c S M S^T, S Y^T) in one product.
        products = steps @ outer.T
        lower = products[:, k:].tril(-1)
        rows = torch.cat([products[:, :k], lower], 1), torch.cat([lower.T, -products[:, k:].diagonal().diag()], 1)
        return cls(mass, scale, outer, torch.cat(rows))

    def product(self, d: Tensor) -> Tensor:
        """B d (p,), a covector."""
        return self.scale * self.mass * d - torch.linalg.solve(self.middle, self.outer @ d) @ self.outer

    def newton_step(self, slope: Tensor, free: Tensor) -> Tensor:
        """The step d in the free variables for which slope + B d vanishes there (Sherman-Morrison-Woodbury)."""
        inverse = torch.where(free, 1.0 / (self.scale * self.mass), 0.0)
        weighted = self.outer * inverse
        step = -inverse * slope
        inside = torch.linalg.solve(self.middle - weighted @ self.outer.T, self.outer @ step)
        return step + inside @ weighted
