"""The Lanczos method for an operator that is symmetric in an inner product, with full reorthogonalisation.

`scipy.sparse.linalg.eigsh` does not serve here: the inner products are those of function spaces, every product takes a
solve with the state equation on the device of the problem, and a rough tolerance ends the method after a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
    operator: Operator, metric: Metric, start: Tensor, goals: Sequence[float]
) -> tuple[float, Tensor, int]:
    """The eigenvalue of largest modulus and its eigenvector.

    The Ritz value grows from step to step, and an eigenvalue is at most the norm of the residual of the Ritz pair away
    from it. This norm is added to the result, as an estimate of what further steps would add.

    Args:
        start: the first vector; not zero.
        goals: for each step the residual, relative to the value, that ends the method there; the last step ends it in
            any case.

    Returns:
        The modulus of the eigenvalue, the Ritz vector with length one, and the applications taken. The eigenvalue is
        not finite where a product is not.
    """
    taken = 0
    last = min(len(goals), start.numel())
    for taken, found in enumerate(_steps(operator, metric.inner, metric.norm, start), 1):
        shares = found.vectors[:, int(found.values.abs().argmax())].tolist()
        residual = found.left * abs(shares[-1])
        if residual <= goals[taken - 1] * found.size or taken == last:
            vector = sum((share * x for share, x in zip(shares, found.basis, strict=True)), torch.zeros_like(start))
            return found.size + residual, vector / metric.norm(vector), taken
    return math.nan, start, taken + 1
