"""Inner products of the parameters of a classifier, and of outer variables."""

from __future__ import annotations

import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.riesz import RieszMap, diagonal_riesz_map
from ..linalg.sparse import SparseMatrix
from .classifier import Classifier, with_constant


def euclidean(like: Tensor) -> RieszMap:
    """The plain inner product of vectors of the size and on the device of a vector (n,)."""
    identity = SparseMatrix(sp.identity(len(like), format="csr"), like.device, symmetric=True)
    return diagonal_riesz_map(torch.ones_like(like), identity)


def training_metric(classifier: Classifier, images: Tensor, ridge: float) -> RieszMap:
    """The inner product of the parameters of softmax regression.

    It is the upper bound I/2 kron (sum_i x_i x_i^T) / N + lambda I of the Hessians of losses whose weights are at most
    one (Boehning 1992, Ann. Inst. Statist. Math. 44, 197-200). A ridge below the rounding errors of the first part is
    raised to these, as an inner product has to be positive definite.
    """
    inputs = with_constant(images)
    block = 0.5 * inputs.T @ inputs / len(inputs)
    rounding = len(block) * torch.finfo(block.dtype).eps * float(block.diagonal().max())
    block.diagonal().add_(max(ridge, rounding))
    factor = torch.linalg.cholesky(block)

    def solve(derivative: Tensor) -> Tensor:
        rows = derivative.reshape(-1, len(block))
        return torch.cholesky_solve(rows.T, factor).T.reshape(derivative.shape)

    whole = sp.kron(sp.identity(classifier.classes), block.numpy(), format="csr")
    return RieszMap(SparseMatrix(whole, symmetric=True), solve)
