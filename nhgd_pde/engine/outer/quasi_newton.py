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
    """B = c M - W N^-1 W^T with a diagonal M.

    W = [c M S, Y] (p, 2k) from steps S and changes of the derivative Y, and N = [[c S^T M S, L], [L^T, -D]] with L
    the strictly lower triangle of S^T Y and D its diagonal.

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
        if not pairs:
            return cls(mass, scale, mass.new_zeros(len(mass), 0), mass.new_zeros(0, 0))
        steps = torch.stack([pair.step for pair in pairs], dim=1)
        changes = torch.stack([pair.derivative for pair in pairs], dim=1)
        scaled = scale * mass[:, None] * steps
        products = steps.T @ changes
        lower = products.tril(-1)
        rows = torch.cat([steps.T @ scaled, lower], 1), torch.cat([lower.T, -products.diagonal().diag()], 1)
        return cls(mass, scale, torch.cat([scaled, changes], 1), torch.cat(rows))

    def product(self, d: Tensor) -> Tensor:
        """B d (p,), a covector."""
        return self.scale * self.mass * d - self.outer @ torch.linalg.solve(self.middle, self.outer.T @ d)

    def newton_step(self, slope: Tensor, free: Tensor) -> Tensor:
        """The step d in the free variables for which slope + B d vanishes there (Sherman-Morrison-Woodbury)."""
        inverse = torch.where(free, 1.0 / (self.scale * self.mass), 0.0)
        weighted = inverse[:, None] * self.outer
        step = -inverse * slope
        inside = torch.linalg.solve(self.middle - self.outer.T @ weighted, self.outer.T @ step)
        return step + weighted @ inside
