"""The running mean L_t of the cross derivatives of the batches of one inner loop, in memory that does not grow with it.

A batch gives its cross derivative in one of three forms:

- at a point u: the cross derivative is its expectation, and affine in u, so that the mean over the batches is that at
  the mean of their points, (S, n) numbers;
- as factors, whose number grows with every batch until the matrix (S, p, n) of the mean is smaller: then this matrix,
  which the paper (arXiv 2602.10905) keeps, takes their place from the first batch on;
- as a function of q, where a problem gives no more: every function is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .bilevel import BilevelProblem, CrossFactors, InnerBatch


class RunningCross(Protocol):
    """The mean over the batches added so far; called with q (S, n), it gives (d2_vu g)^T q, (p,)."""

    def add(self, batch: InnerBatch) -> None: ...
    def __call__(self, q: Tensor) -> Tensor: ...


@runtime_checkable
class CrossElsewhere(Protocol):
    """A mean in the process of the inverse, where the hypergradient without refinement is formed as well."""

    def hypergradient(self, by_u: Tensor, by_v: Tensor, debias: bool) -> tuple[Tensor, Tensor, Tensor]:
        """From grad_u f (S, n) and grad_v f (p,): q = A grad_u f, -L q and h = grad_v f - L q."""
        ...


def cross_data(batch: InnerBatch) -> tuple[Tensor, ...]:
    """The cross derivative of a batch as tensors: (u,), (left, right), or none where it is a function only."""
    if batch.cross_point is not None:
        return (batch.cross_point,)
    if batch.cross_factors is not None:
        factors = batch.cross_factors()
        return factors.left, factors.right
    return ()


@dataclass
class LocalCross:
    """The mean in this process.

    Attributes:
        problem: the bilevel problem.
        v: (p,) the outer variables of the loop.
        steps: largest number of batches, which decides between factors and matrix.
    """

    problem: BilevelProblem
    v: Tensor
    steps: int
    _count: int = 0
    _points: Tensor | None = None
    _matrix: Tensor | None = None
    _kept: list[Callable[[Tensor], Tensor]] = field(default_factory=list)

    def add(self, batch: InnerBatch) -> None:
        data = cross_data(batch)
        if data:
            self.add_data(*data)
        else:
            self._count += 1
            self._kept.append(batch.cross)

    def add_data(self, *data: Tensor) -> None:
        """A batch as `cross_data` gives it."""
        self._count += 1
        if len(data) == 1:
            (u,) = data
            self._points = u.clone() if self._points is None else self._points.add_(u)
            return
        left, right = data
        (scenarios, columns, p), n = left.shape, right.shape[2]
        if self.steps * columns * (p + n) <= p * n:
            self._kept.append(CrossFactors(left, right))
            return
        if self._matrix is None:
            self._matrix = left.new_zeros(scenarios, p, n)
        self._matrix.baddbmm_(left.mT, right)

    @property
    def bytes(self) -> int:
        """The memory of the mean, as far as it is known."""
        kept = [x for x in (self._points, self._matrix) if x is not None]
        kept += [x for each in self._kept if isinstance(each, CrossFactors) for x in (each.left, each.right)]
        return sum(x.numel() * x.element_size() for x in kept)

    def __call__(self, q: Tensor) -> Tensor:
        parts = [each(q) for each in self._kept]
        if self._matrix is not None:
            parts.append(torch.einsum("spn,sn->p", self._matrix, q))
        if self._points is not None:
            parts.append(self._count * self.problem.cross_product(self._points / self._count, self.v, q))
        return torch.stack(parts).sum(0) / self._count
