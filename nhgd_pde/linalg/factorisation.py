"""A sparse matrix prepared once, for solves with it and with its transpose that are counted."""

from __future__ import annotations

import scipy.sparse as sp
import torch
from torch import Tensor

from .counts import Counts
from .riesz import RieszMap
from .solvers.base import Hints, LinearSolver, SingularMatrixError
from .solvers.superlu import SuperLU
from .sparse import ScenarioMatrix, SparseMatrix

__all__ = [
    "DIRECT",
    "Factorisation",
    "ScenarioFactorisation",
    "SingularMatrixError",
    "factorised_riesz_map",
    "gram_solver",
]

# Factors of any matrix, without hints.
DIRECT = LinearSolver(SuperLU())


class Factorisation:
    """A sparse (n, n) matrix, prepared by a solver: factors, or a hierarchy of coarser matrices.

    Vectors may live on any device.

    Args:
        matrix: the matrix.
        counts: where the preparation and every solve are counted.
        symmetric: the matrix equals its transpose.
        solver: the solver.

    Raises:
        SingularMatrixError: the matrix is singular to working precision or not finite.
    """

    def __init__(self, matrix: sp.csr_matrix, counts: Counts, symmetric: bool, solver: LinearSolver = DIRECT) -> None:
        self.prepared = solver.prepare(matrix, symmetric)
        self._counts = counts
        counts.factorisations += 1

    @property
    def bytes(self) -> int:
        return self.prepared.bytes

    def solve(self, b: Tensor) -> Tensor:
        """A^-1 b for every row of (k, n)."""
        self._counts.solves += b.shape[0]
        return self.prepared.solve(b)

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A^-T b for every row of (k, n)."""
        self._counts.solves += b.shape[0]
        return self.prepared.solve_transposed(b)

    def __repr__(self) -> str:
        return f"Factorisation({self.prepared.size:,} unknowns, {self.bytes:,} bytes)"


class ScenarioFactorisation:
    """The matrices of all scenarios, prepared one by one; once where they share one matrix."""

    def __init__(self, matrix: ScenarioMatrix, counts: Counts, solver: LinearSolver = DIRECT) -> None:
        count = matrix.data.shape[0]
        self._factors = [Factorisation(matrix.host(s), counts, matrix.symmetric, solver) for s in range(count)]

    @property
    def bytes(self) -> int:
        """Bytes of the factors of all scenarios."""
        return sum(factor.bytes for factor in self._factors)

    def solve(self, b: Tensor) -> Tensor:
        """A_s^-1 b_s, (S, n)."""
        if len(self._factors) == 1:
            return self._factors[0].solve(b)
        return torch.cat([factor.solve(row[None]) for factor, row in zip(self._factors, b, strict=True)])

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A_s^-T b_s, (S, n)."""
        if len(self._factors) == 1:
            return self._factors[0].solve_transposed(b)
        return torch.cat([factor.solve_transposed(row[None]) for factor, row in zip(self._factors, b, strict=True)])


def gram_solver(solver: LinearSolver) -> LinearSolver:
    """The solver for the Gram matrices of spaces on the same mesh: definite, and without couplings of components."""
    return solver.with_hints(Hints(symmetric=True, definite=True, dim=solver.hints.dim))


def factorised_riesz_map(matrix: SparseMatrix, counts: Counts, solver: LinearSolver = DIRECT) -> RieszMap:
    """The Riesz map of a Gram matrix inverted by a solver, which prepares the matrix when this is first needed."""
    factors: list[Factorisation] = []

    def solve(derivative: Tensor) -> Tensor:
        if not factors:
            factors.append(Factorisation(matrix.host, counts, symmetric=True, solver=solver))
        return factors[0].solve(derivative)

    return RieszMap(matrix, solve)
