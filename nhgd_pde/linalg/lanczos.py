"""The Lanczos method for an operator that is symmetric in an inner product, with full reorthogonalisation.

`scipy.sparse.linalg.eigsh` does not serve here: the inner products are those of function spaces, every product takes a
solve with the state equation on the device of the problem, and a rough tolerance ends the method after a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .krylov import Metric, Operator
from .safe_lengths import root


@dataclass(frozen=True)
class _Ritz:
    """The Lanczos method after k steps: orthonormal vectors, and Ritz values (k,) with their coefficients (k, k).

    `left` is the length of the next direction before it is normalised; 0 up to rounding in an invariant subspace.
    """

    basis: list[Tensor]
    values: Tensor
    vectors: Tensor
    left: float

    @property
    def size(self) -> float:
        """The largest modulus of the Ritz values."""
        return float(self.values.abs().max())


def _steps(
    operator: Operator, inner: Callable[[Tensor, Tensor], float], norm: Callable[[Tensor], float], start: Tensor
) -> Iterator[_Ritz]:
    """The method after 1, 2, ... steps; it ends where a product is not finite."""
    basis = [start / norm(start)]
    diagonal: list[float] = []
    side: list[float] = []
    while True:
        image = operator(basis[-1])
        diagonal.append(inner(basis[-1], image))
        # The latest vector comes first: otherwise a part of it would come back through the older ones.
        for vector in reversed(basis):
            image = image - inner(vector, image) * vector
        left = norm(image)
        if not (math.isfinite(diagonal[-1]) and math.isfinite(left)):
            return
        off = torch.tensor(side, dtype=torch.float64)
        matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(matrix)
        yield _Ritz(basis, values, vectors, left)
        side.append(left)
        basis.append(image / left)


def extreme_eigenvalues(
    operator: Operator, inner: Callable[[Tensor, Tensor], float], start: Tensor, steps: int = 20
) -> tuple[float, float]:
    """Estimates of the smallest and largest eigenvalue: the extreme Ritz values after some steps.

    They are inside the spectrum, and close to its ends after few steps where the condition number is moderate. They are
    NaN where a product, or the start, is not finite or zero.
    """
    square = inner(start, start)
    if not 0.0 < square < math.inf:
        return math.nan, math.nan

    def norm(x: Tensor) -> float:
        return root(inner(x, x), lambda: square)

    low = high = math.nan
    for taken, found in enumerate(_steps(operator, inner, norm, start), 1):
        low, high = float(found.values[0]), float(found.values[-1])
        if taken == min(steps, start.numel()) or found.left <= 1e-12 * found.size:
            return low, high
    return math.nan, math.nan


def largest_eigenpair(
    operator: Operator, metric: Metric, start: Tensor, rtol: float, steps: int
) -> tuple[float, Tensor, int]:
    """The eigenvalue of largest modulus and its eigenvector.

    The Ritz value grows from step to step. The method ends where a step has changed it by at most the tolerance. This
    change is added to the result as an estimate of the steps that are not taken.

    Args:
        operator: x -> A x, shapes as `start`.
        metric: the inner product.
        start: first vector, not zero.
        rtol: relative tolerance of the eigenvalue.
        steps: largest number of applications of the operator.

    Returns:
        The modulus of the eigenvalue, the Ritz vector with length one, and the applications taken. The eigenvalue is
        not finite where a product is not.
    """
    before, taken = 0.0, 0
    for taken, found in enumerate(_steps(operator, metric.inner, metric.norm, start), 1):
        size, invariant = found.size, found.left <= rtol * found.size
        if invariant or taken == min(steps, start.numel()) or size - before <= rtol * size:
            # In an invariant subspace the eigenvector has been found, and the change is a rounding error.
            change = 0.0 if invariant or taken == 1 else size - before
            shares = found.vectors[:, int(found.values.abs().argmax())].tolist()
            vector = sum((share * x for share, x in zip(shares, found.basis, strict=True)), torch.zeros_like(start))
            return size + max(change, 0.0), vector / metric.norm(vector), taken
        before = size
    return math.nan, start, taken + 1
