"""Which solver a matrix takes where none is asked for: by dimension, size and structure."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.sparse as sp

from .base import Hints, Prepared, Solver
from .crossovers import CROSSOVER, CROSSOVER_OF_FLOWS
from .superlu import SuperLU


@dataclass(frozen=True)
class Auto:
    """The solver that is likely to be fastest: factors, or multigrid for large definite systems.

    Attributes:
        rtol: relative error of a solve of an iterative solver; None for its default.
    """

    rtol: float | None = None
    name = "auto"

    def chosen(self, unknowns: int, hints: Hints) -> tuple[Solver, str]:
        """The solver for a matrix of this size, and the reason in a few words."""
        flow = hints.schur is not None
        if not hints.symmetric or (hints.definite is False and not flow):
            return SuperLU(), "the matrix is not definite" if hints.symmetric else "the matrix is not symmetric"
        size = f"{unknowns:,} unknowns in {hints.dim}-D"
        if unknowns < (CROSSOVER_OF_FLOWS if flow else CROSSOVER)[hints.dim]:
            return SuperLU(), size
        from .amg import AMG

        return (AMG() if self.rtol is None else AMG(self.rtol)), size

    def prepare(self, matrix: sp.csr_matrix, hints: Hints) -> Prepared:
        return self.chosen(matrix.shape[0], hints)[0].prepare(matrix, hints)
