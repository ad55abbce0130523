"""The multigrid W-cycle in torch, applied to all right-hand sides at once, for a hierarchy of any origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..sparse import torch_csr

# The Chebyshev polynomial damps the eigenvalues of D^-1 A between these shares of an upper bound of the largest one;
# those below are left to the coarser level.
_LOWEST, _HIGHEST = 0.15, 1.05
# Steps of the Lanczos iteration that bounds the largest eigenvalue.
_LANCZOS = 12


@dataclass(frozen=True, eq=False)
class Level:
    """One level with a coarser one below it; vectors are columns (n, k).

    Attributes:
        matrix: A (n, n), a CSR tensor.
        inverse_diagonal: (n, 1) 1 / diag(A).
        prolong: P (n, coarse), a CSR tensor.
        restrict: P^T as a CSR tensor of its own.
        largest: an upper estimate of the largest eigenvalue of D^-1 A.
        degree: degree of the smoothing polynomial.
    """

    matrix: Tensor
    inverse_diagonal: Tensor
    prolong: Tensor
    restrict: Tensor
    largest: float
    degree: int

    def smooth(self, b: Tensor, x: Tensor | None) -> Tensor:
        """x after a Chebyshev iteration for A x = b (Saad 2003, Iterative Methods, algorithm 12.1); None is zero."""
        low, high = _LOWEST * self.largest, _HIGHEST * self.largest
        centre, radius = 0.5 * (high + low), 0.5 * (high - low)
        sigma = centre / radius
        rho = 1.0 / sigma
        residual = b if x is None else b - product(self.matrix, x)
        step = self.inverse_diagonal * residual / centre
        x = step if x is None else x + step
        for _ in range(self.degree - 1):
            residual = residual - product(self.matrix, step)
            before, rho = rho, 1.0 / (2.0 * sigma - rho)
            step = (rho * before) * step + (2.0 * rho / radius) * (self.inverse_diagonal * residual)
            x = x + step
        return x


def product(matrix: Tensor, x: Tensor) -> Tensor:
    """A x for the columns of x (n, k)."""
    return torch.mv(matrix, x[:, 0])[:, None] if x.shape[1] == 1 else matrix @ x


class Hierarchy:
    """A symmetric W-cycle; symmetric positive definite where A is.

    A W-cycle solves for each correction twice. The levels of aggregates are so small that this takes little time, and
    the number of cycles then does not grow with the number of levels, as that of V-cycles does.

    Args:
        matrices: A of every level, from the finest on.
        prolongations: P of every level but the last.
        device: where the cycle runs.
        degree: degree of the smoothing polynomial before and after each correction.
    """

    def __init__(
        self,
        matrices: Sequence[sp.csr_matrix],
        prolongations: Sequence[sp.csr_matrix],
        device: torch.device,
        degree: int = 2,
    ) -> None:
        self._levels = [
            _level(matrix, prolongation, device, degree)
            for matrix, prolongation in zip(matrices[:-1], prolongations, strict=True)
        ]
        self._coarse = _inverse(torch.from_numpy(matrices[-1].toarray())).to(device)

    @property
    def bytes(self) -> int:
        held = [self._coarse]
        for level in self._levels:
            for each in (level.matrix, level.prolong, level.restrict):
                held += [each.values(), each.col_indices(), each.crow_indices()]
        return sum(each.numel() * each.element_size() for each in held)

    def apply(self, b: Tensor) -> Tensor:
        """One cycle from zero for every row of b (k, n); (k, n)."""
        return self._cycle(0, b.T.contiguous()).T.contiguous()

    def _cycle(self, number: int, b: Tensor) -> Tensor:
        if number == len(self._levels):
            return self._coarse @ b
        level = self._levels[number]
        x = level.smooth(b, None)
        right = product(level.restrict, b - product(level.matrix, x))
        coarse = self._cycle(number + 1, right)
        if number + 1 < len(self._levels):
            below = self._levels[number + 1].matrix
            coarse = coarse + self._cycle(number + 1, right - product(below, coarse))
        return level.smooth(b, x + product(level.prolong, coarse))


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse of a symmetric positive semidefinite matrix, on its range where it is singular."""
    if not len(matrix):
        # A space of higher degree has no functions of degree one where all vertices have given values.
        return matrix
    factor, info = torch.linalg.cholesky_ex(matrix)
    diagonal = factor.diagonal()
    # Pivots that are rounding errors show a singular matrix.
    if not info.any() and float(diagonal.min()) > 1e-7 * float(diagonal.max()):
        return torch.cholesky_inverse(factor)
    return torch.linalg.pinv(matrix, hermitian=True)


def _level(matrix: sp.csr_matrix, prolongation: sp.csr_matrix, device: torch.device, degree: int) -> Level:
    diagonal = matrix.diagonal()
    # Aggregates with fewer unknowns than there are modes leave functions that vanish, whose rows are zero.
    inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0.0)
    return Level(
        matrix=torch_csr(matrix, device),
        inverse_diagonal=torch.from_numpy(inverse).to(device)[:, None],
        prolong=torch_csr(prolongation, device),
        restrict=torch_csr(prolongation.T.tocsr(), device),
        largest=largest_eigenvalue(matrix, inverse),
        degree=degree,
    )


def largest_eigenvalue(matrix: sp.csr_matrix, inverse: np.ndarray) -> float:
    """An estimate from above of the largest eigenvalue of D^-1 A, A symmetric, with D^-1 given (n,).

    Lanczos steps give a value from below, to which the last residual is added; Gershgorin's bound is never exceeded.
    """
    root = np.sqrt(inverse)
    x = np.random.default_rng(0).standard_normal(len(root))
    x /= np.linalg.norm(x)
    before, beta = np.zeros_like(x), 0.0
    alphas: list[float] = []
    betas: list[float] = []
    for _ in range(min(_LANCZOS, len(root))):
        y = (matrix @ (x * root)) * root - beta * before
        alpha = float(x @ y)
        y -= alpha * x
        beta = float(np.linalg.norm(y))
        alphas.append(alpha)
        betas.append(beta)
        if not beta > 0.0:
            break
        before, x = x, y / beta
    tridiagonal = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    values, vectors = np.linalg.eigh(tridiagonal)
    estimate = float(values[-1] + betas[-1] * abs(vectors[-1, -1]))
    rows = np.asarray(abs(matrix).sum(axis=1)).reshape(-1) * inverse
    return min(estimate, float(rows.max()))
