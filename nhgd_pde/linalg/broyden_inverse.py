"""Broyden's method in the inner product of a space, with its inverse in limited-memory form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .riesz import RieszMap
from .safe_lengths import dot, paired_length

_MOST_RETREATS = 20


@dataclass(frozen=True)
class LowRankInverse:
    """A = t K^-1 + sum_i u_i v_i^T, from covectors to vectors, with the scale t and the latest u_i and v_i last."""

    scale: float
    left: Tensor
    right: Tensor

    @staticmethod
    def scaled(scale: float, like: Tensor) -> LowRankInverse:
        """t K^-1 for vectors of the shape (k, n) of `like`."""
        return LowRankInverse(scale, like.new_zeros((0, *like.shape)), like.new_zeros((0, *like.shape)))

    @property
    def rank(self) -> int:
        return self.left.shape[0]

    def solve(self, x: Tensor, riesz: Tensor) -> Tensor:
        """A x for a covector x with `riesz` = K^-1 x."""
        return self.scale * riesz + torch.tensordot(_dots(self.right, x), self.left, 1)

    def solve_transposed(self, x: Tensor, riesz: Tensor) -> Tensor:
        """A^T x, with the same arguments."""
        return self.scale * riesz + torch.tensordot(_dots(self.left, x), self.right, 1)

    def updated(self, metric: RieszMap, s: Tensor, y: Tensor, image: Tensor, memory: int) -> LowRankInverse:
        """Broyden's good update in the inner product K: A+ = A + (s - A y) (A^T K s)^T / (s . K A y).

        s (k, n) is a step, y the change of the residual over it, and `image` is A y. Of `memory` pairs, at least 1, the
        oldest one is dropped before the update, so that A+ y = s.
        """
        old = self
        if self.rank == memory:
            image = image - float(_dots(self.right[:1], y)) * self.left[0]
            old = replace(self, left=self.left[1:], right=self.right[1:])
        steep = metric.covector(s)
        pivot = dot(steep, image)
        if not abs(pivot) > 1e-8 * dot(steep, s):
            return self
        left = torch.cat([old.left, (s - image)[None]])
        right = torch.cat([old.right, old.solve_transposed(steep, s)[None] / pivot])
        return replace(self, left=left, right=right)


@dataclass(frozen=True)
class BroydenResult:
    """The last iterate, the inverse, the dual norm of the last residual, and the number of steps."""

    solution: Tensor
    inverse: LowRankInverse
    length: float
    steps: int


def broyden(
    residual: Callable[[Tensor], Tensor],
    x: Tensor,
    inverse: LowRankInverse,
    metric: RieszMap,
    goal: Callable[[Tensor], float],
    steps: int,
    memory: int,
    transposed: bool = False,
) -> BroydenResult:
    """Solve residual(x) = 0 by x <- x - A residual(x); updates make A map the change of the residual to the step.

    Broyden 1965, Math. Comp. 19, with the "good" update. A step that doubles the dual norm of the residual is not
    taken: all pairs are forgotten, or the scale is halved where there are none.

    Args:
        residual: vectors (k, n) -> covectors (k, n).
        x: the start.
        inverse: A to start with.
        metric: K.
        goal: x -> dual norm of the residual to reach.
        steps: largest number of steps; each takes one residual and one solve with K.
        memory: largest number of pairs of A.
        transposed: the first step is -A^T residual(x), not taken where it makes the residual longer.
    """
    r = residual(x)
    riesz = metric.gradient(r)
    length, taken, retreats = paired_length(r, riesz), 0, 0
    while taken < steps and retreats < _MOST_RETREATS and not length <= goal(x):
        image = inverse.solve(r, riesz)
        first = transposed and taken == retreats == 0
        s = -inverse.solve_transposed(r, riesz) if first else -image
        after = residual(x + s)
        after_riesz = metric.gradient(after)
        after_length = paired_length(after, after_riesz)
        if not after_length <= (1.0 if first else 2.0) * length:
            inverse = LowRankInverse.scaled(inverse.scale if inverse.rank else 0.5 * inverse.scale, x)
            retreats += 1
            continue
        inverse = inverse.updated(metric, s, after - r, inverse.solve(after, after_riesz) - image, memory)
        x, r, riesz, length, taken = x + s, after, after_riesz, after_length, taken + 1
    return BroydenResult(x, inverse, length, taken)


def _dots(rows: Tensor, x: Tensor) -> Tensor:
    """The inner product of every row (r, k, n) with x (k, n)."""
    return torch.tensordot(rows, x, x.ndim)
