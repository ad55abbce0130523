"""A sparse matrix prepared once, for solves with it and with its transpose that are counted."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .counts import Counts
from .riesz import RieszMap
from .solvers.base import Hints, Iterative, LinearSolver, SingularMatrixError
from .solvers.superlu import SuperLU
from .sparse import ScenarioMatrix, SparseMatrix
from .stage_log import stage

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
        with stage("factorisation"):
            self.prepared = solver.prepare(matrix, symmetric)
        self._counts = counts
        self._rtol: float | None = None
        counts.factorisations += 1

    @property
    def bytes(self) -> int:
        return self.prepared.bytes

    def within(self, rtol: float) -> Self:
        """The same preparation, for solves that are cut short at a relative error where they are iterations."""
        view = copy(self)
        view._rtol = rtol
        return view

    def solve(self, b: Tensor) -> Tensor:
        """A^-1 b for every row of (k, n)."""
        return self._solve(b, False)

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A^-T b for every row of (k, n)."""
        return self._solve(b, True)

    def _solve(self, b: Tensor, transposed: bool) -> Tensor:
        self._counts.solves += b.shape[0]
        prepared = self.prepared
        if self._rtol is not None and not prepared.exact and isinstance(prepared, Iterative):
            found = prepared.solve_within(b, self._rtol, transposed)
        else:
            found = prepared.solve_transposed(b) if transposed else prepared.solve(b)
        self._counts.note(prepared.note)
        return found

    def overestimate(self, b: Tensor) -> Tensor | None:
        """P b with r . A^-1 r <= r . P r, A definite; None where nothing is cheaper than a solve."""
        return self.prepared.overestimate(b)

    def __repr__(self) -> str:
        return f"Factorisation({self.prepared.size:,} unknowns, {self.bytes:,} bytes)"


class ScenarioFactorisation:
    """The matrices of all scenarios, prepared one by one; once where they share one matrix."""

    def __init__(self, matrix: ScenarioMatrix, counts: Counts, solver: LinearSolver = DIRECT) -> None:
        count = matrix.data.shape[0]
        self._factors = [Factorisation(matrix.host(s), counts, matrix.symmetric, solver) for s in range(count)]

    def within(self, rtol: float) -> Self:
        """As of a `Factorisation`."""
        view = copy(self)
        view._factors = [factor.within(rtol) for factor in self._factors]
        return view

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

    def overestimate(self, b: Tensor) -> Tensor | None:
        """As of a `Factorisation`, where the scenarios share one matrix; else None."""
        return self._factors[0].overestimate(b) if len(self._factors) == 1 else None


def gram_solver(solver: LinearSolver, coefficients: np.ndarray | None = None) -> LinearSolver:
    """The solver for Gram matrices, which are definite and do not couple components.

    Args:
        solver: the solver for the derivative of the equation.
        coefficients: the unknowns, where they are not those of the equation.
    """
    hints = solver.hints
    unknowns = hints.coefficients if coefficients is None else coefficients
    return solver.with_hints(Hints(True, True, hints.dim, linear=hints.linear, coefficients=unknowns))


def factorised_riesz_map(matrix: SparseMatrix, counts: Counts, solver: LinearSolver = DIRECT) -> RieszMap:
    """The Riesz map of a Gram matrix inverted by a solver, which prepares the matrix when this is first needed."""
    factors = cache(lambda: Factorisation(matrix.host, counts, symmetric=True, solver=solver))
    return RieszMap(
        matrix,
        lambda derivative: factors().solve(derivative),
        error=lambda: factors().prepared.error,
        overestimate=lambda derivative: factors().overestimate(derivative),
        rough=lambda derivative, rtol: factors().within(rtol).solve(derivative),
    )
