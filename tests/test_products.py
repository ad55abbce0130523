"""Kronecker products and block diagonal matrices that are applied without being made."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from nhgd_pde.linalg.products import BlockDiagonalMatrix, KroneckerMatrix, repeated
from nhgd_pde.linalg.sparse import SparseMatrix
from problems import random


def sparse(m: int, n: int, seed: int) -> sp.csr_matrix:
    return sp.csr_matrix(sp.random_array((m, n), density=0.5, rng=seed))


def square(n: int) -> SparseMatrix:
    a = sparse(n, n, 7)
    return SparseMatrix(sp.csr_matrix(a + a.T + sp.identity(n)), symmetric=True)


CASES = {
    "kron": lambda: KroneckerMatrix(sparse(3, 4, 0), SparseMatrix(sparse(5, 2, 1))),
    "identity on the right": lambda: KroneckerMatrix(sparse(3, 4, 2), 5),
    "copies": lambda: repeated(square(4), 6, 0.5),
    "one copy": lambda: repeated(square(4), 1, 0.5),
    "blocks": lambda: BlockDiagonalMatrix([repeated(square(3), 4, 2.0), square(2)]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [1, 3])
def test_products_are_those_of_the_whole_matrix(case: str, count: int) -> None:
    matrix = CASES[case]()
    dense = torch.from_numpy(matrix.host.toarray())
    assert matrix.shape == tuple(dense.shape)
    x, y = random(count, dense.shape[1], seed=3), random(count, dense.shape[0], seed=4)
    torch.testing.assert_close(matrix.mv(x), x @ dense.T, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(matrix.rmv(y), y @ dense, rtol=1e-13, atol=1e-14)
    assert matrix.symmetric == (matrix.shape[0] == matrix.shape[1] and bool((dense == dense.T).all()))
    if matrix.shape[0] == matrix.shape[1]:
        np.testing.assert_allclose(matrix.diagonal().numpy(), np.diag(dense.numpy()), rtol=1e-14)


def test_the_product_itself_is_not_made() -> None:
    matrix = repeated(square(4), 1000, 0.5)
    matrix.mv(random(2, 4000, seed=0))
    assert "host" not in matrix.__dict__
