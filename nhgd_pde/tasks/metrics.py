"""Inner products of the parameters of classifiers, and of outer variables."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.riesz import RieszMap, diagonal_riesz_map
from ..linalg.sparse import SparseMatrix
from .classifier import Classifier


def euclidean(size: int, weight: float = 1.0) -> RieszMap:
    """The Euclidean inner product of vectors of a size, times a weight."""
    identity = sp.identity(size, format="csr") * weight
    return diagonal_riesz_map(torch.full((size,), weight, dtype=torch.float64), SparseMatrix(identity, symmetric=True))


@dataclass(frozen=True, eq=False)
class RepeatedMatrix:
    """A symmetric dense matrix (f, f) applied to every block of f numbers: I kron B."""

    block: Tensor
    copies: int

    def mv(self, x: Tensor) -> Tensor:
        return (x.reshape(-1, len(self.block)) @ self.block).reshape(x.shape)

    def diagonal(self) -> Tensor:
        return self.block.diagonal().repeat(self.copies)


def training_metric(classifier: Classifier, images: Tensor, ridge: float) -> RieszMap:
    """The inner product of the parameters of a classifier.

    For softmax regression the upper bound of all Hessians, I/2 kron (sum_i x_i x_i^T) / N + lambda I, of losses whose
    weights are at most one (Boehning 1992, Ann. Inst. Statist. Math. 44, 197-200). For networks, whose Hessians have
    no such bound, the plain inner product times the mean curvature of the last layer.
    """
    inputs = torch.cat([images, images.new_ones(len(images), 1)], 1)
    if not classifier.linear:
        return euclidean(classifier.size)
    block = 0.5 * inputs.T @ inputs / len(inputs)
    block.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(block)

    def solve(derivative: Tensor) -> Tensor:
        rows = derivative.reshape(-1, len(block))
        return torch.cholesky_solve(rows.T, factor).T.reshape(derivative.shape)

    return RieszMap(RepeatedMatrix(block, classifier.classes), solve)  # type: ignore[arg-type]
