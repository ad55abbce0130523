"""The eigenvalue of largest modulus by the Lanczos method."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .krylov import Metric, Operator


def largest_eigenpair(
    operator: Operator, metric: Metric, start: Tensor, rtol: float, steps: int
) -> tuple[float, Tensor, int]:
    """The eigenvalue of largest modulus of an operator that is symmetric in an inner product, and its eigenvector.

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
    basis = [start / metric.norm(start)]
    diagonal: list[float] = []
    off: list[float] = []
    before, taken = 0.0, 0
    while True:
        image = operator(basis[-1])
        taken += 1
        diagonal.append(metric.inner(basis[-1], image))
        for vector in reversed(basis):
            image = image - metric.inner(vector, image) * vector
        length = metric.norm(image)
        if not (math.isfinite(diagonal[-1]) and math.isfinite(length)):
            return math.nan, start, taken
        side = torch.tensor(off, dtype=torch.float64)
        tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        values, vectors = torch.linalg.eigh(tridiagonal + torch.diag(side, 1) + torch.diag(side, -1))
        largest = int(values.abs().argmax())
        found = float(values[largest].abs())
        # In an invariant space the eigenvector has been found, and the rest is rounding.
        if length <= rtol * found or taken == min(steps, start.numel()) or found - before <= rtol * found:
            change = found - before if taken > 1 and length > rtol * found else 0.0
            vector = sum(
                (c * x for c, x in zip(vectors[:, largest].tolist(), basis, strict=True)), torch.zeros_like(start)
            )
            return found + max(change, 0.0), vector / metric.norm(vector), taken
        before = found
        off.append(length)
        basis.append(image / length)
