"""The leading eigenpairs of the misfit's Hessian against the precision of the prior, H w = lambda R w.

With the root R = L^T L of the prior these are the eigenpairs of L^-T H L^-1, which is symmetric. They are found by the
randomised method of two passes (Halko, Martinsson and Tropp 2011, SIAM Review 53; for generalised problems Saibaba, Lee
and Kitanidis 2016, Numer. Linear Algebra Appl. 23): an orthonormal basis of the images of random directions, and the
eigenpairs of the operator on this basis. The basis grows until the smallest eigenvalues are below a threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Vectors of a growth of the basis, and eigenvalues below the threshold that the basis has to have: the last ones are
# found least well.
_BLOCK, _BEYOND = 16, 10
# Random directions for the trace of what is left out.
_PROBES = 20


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The leading eigenpairs of a symmetric operator, and what is left out.

    Attributes:
        eigenvalues: (r,) the largest first, by magnitude.
        vectors: (r, p) orthonormal.
        next: the largest magnitude among the eigenvalues that were found and are not kept; 0 where all were found.
        left: the sum of the eigenvalues that are not kept, estimated by random directions; 0 where all were found.
        left_error: the standard error of this estimate.
        products: the products with the operator that were taken.
    """

    eigenvalues: Tensor
    vectors: Tensor
    next: float
    left: float
    left_error: float
    products: int


def leading_spectrum(
    operator: Callable[[Tensor], Tensor],
    size: int,
    directions: Callable[[int], Tensor],
    rank: int,
    threshold: float,
    most: int | None,
    generator: torch.Generator,
) -> Spectrum:
    """The eigenpairs with eigenvalues of at least a threshold in magnitude.

    Args:
        operator: symmetric, for rows (k, size).
        size: p.
        directions: count -> (count, p) random directions for the first pass.
        rank: a bound of the rank of the operator, such as the number of measured values.
        threshold: of the magnitudes.
        most: eigenpairs to keep at most; None for all above the threshold.
        generator: of the directions for what is left out.
    """
    limit = min(rank, size)
    wanted = limit if most is None else min(limit, most + _BEYOND)
    first = directions(0)
    basis, image = first, first
    products = 0
    if not limit:
        return Spectrum(first.new_zeros(0), first, 0.0, 0.0, 0.0, 0)
    while True:
        count = min(_BLOCK, wanted - len(basis))
        block = _orthonormal(operator(directions(count)), basis)
        image = torch.cat([image, operator(block)])
        basis = torch.cat([basis, block])
        products += 2 * count
        values, vectors = _ritz(basis, image)
        if len(basis) >= wanted or int((values.abs() < threshold).sum()) >= _BEYOND:
            break
    kept = int((values.abs() >= threshold).sum())
    kept = kept if most is None else min(kept, most)
    rest = values[kept:].abs()
    beyond = float(rest[0]) if len(rest) else 0.0
    chosen = vectors[:kept]
    if len(basis) == limit:
        return Spectrum(values[:kept], chosen, beyond, float(values[kept:].sum()), 0.0, products)
    left, error = _trace_left(operator, chosen, size, generator)
    return Spectrum(values[:kept], chosen, beyond, left, error, products + _PROBES)


def _orthonormal(rows: Tensor, basis: Tensor) -> Tensor:
    """An orthonormal basis (k, p) of the rows beside those of a basis; twice, so that rounding leaves nothing."""
    found = torch.linalg.qr(rows.T).Q.T
    for _ in range(2):
        found = torch.linalg.qr((found - (found @ basis.T) @ basis).T).Q.T
    return found


def _ritz(basis: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenpairs on a basis, the largest magnitude first."""
    small = basis @ image.T
    values, turn = torch.linalg.eigh(0.5 * (small + small.T))
    order = torch.argsort(values.abs(), descending=True, stable=True)
    return values[order], turn[:, order].T @ basis


def _trace_left(
    operator: Callable[[Tensor], Tensor], kept: Tensor, size: int, generator: torch.Generator
) -> tuple[float, float]:
    """The trace of the operator beside some eigenvectors with its standard error, by directions of random signs."""
    signs = torch.randint(0, 2, (_PROBES, size), generator=generator).to(kept) * 2.0 - 1.0
    signs = signs - (signs @ kept.T) @ kept
    squares = (signs * operator(signs)).sum(1)
    return float(squares.mean()), float(squares.std() / _PROBES**0.5)
