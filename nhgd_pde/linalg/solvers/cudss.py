"""cuDSS: factors on a GPU, through nvmath-python."""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .base import Hints, Library, WithoutEstimate
from .superlu import significant, singular
from .trial_solve import recovers


def _there() -> bool:
    return find_spec("nvmath") is not None and torch.cuda.is_available()


@dataclass(frozen=True)
class CuDSS:
    """Cholesky, LDL^T or LU factors on a GPU, by cuDSS."""

    name = "cudss"
    library = Library("nvmath-python and a GPU with CUDA", 'pip install "nvmath-python[cu12]"', _there)

    def prepare(self, matrix: sp.csr_matrix, hints: Hints) -> CuDSSFactors:
        """The factors; raises a `SingularMatrixError` where there are none."""
        kinds = ["GENERAL"]
        if hints.symmetric:
            kinds = ["SYMMETRIC"] if hints.definite is False else ["SPD", "SYMMETRIC"]
            matrix = significant(sp.csr_matrix(matrix))
        for kind in kinds:
            found = CuDSSFactors(matrix, kind)
            if recovers(found.solve_column, matrix):
                return found
            # The factors are large: they are released before others are made.
            found.release()
        raise singular(matrix)


class CuDSSFactors(WithoutEstimate):
    """The factors of a matrix on a GPU. Vectors may live on any device.

    cuDSS does not solve with the transpose of its factors: a matrix that is not symmetric gets a second set of factors,
    of its transpose, when this is first asked for. The number of columns of a solve is fixed when a matrix is
    factorised; columns are therefore solved for one after the other.
    """

    exact, error, note = True, 0.0, ""

    def __init__(self, matrix: sp.csr_matrix, kind: str) -> None:
        self._matrix, self._kind = matrix, kind
        self._systems: dict[bool, _System] = {False: _System(matrix, kind)}

    @property
    def size(self) -> int:
        return int(self._matrix.shape[0])

    @property
    def bytes(self) -> int:
        """Bytes of the factors on the GPU."""
        return sum(each.bytes for each in self._systems.values())

    def release(self) -> None:
        for each in self._systems.values():
            each.release()

    def solve_column(self, b: np.ndarray) -> np.ndarray:
        """A^-1 b for (n,)."""
        return self.solve(torch.from_numpy(b)[None])[0].numpy()

    def solve(self, b: Tensor) -> Tensor:
        return self._systems[False].solve(b)

    def overestimate(self, b: Tensor) -> Tensor | None:
        return None

    def solve_transposed(self, b: Tensor) -> Tensor:
        if self._kind != "GENERAL":
            return self.solve(b)
        if True not in self._systems:
            self._systems[True] = _System(sp.csr_matrix(self._matrix.T), self._kind)
        return self._systems[True].solve(b)


class _System:
    """One matrix with its factors; of a symmetric matrix the lower triangle is passed."""

    def __init__(self, matrix: sp.csr_matrix, kind: str) -> None:
        from nvmath.sparse.advanced import (
            DirectSolver,
            DirectSolverMatrixType,
            DirectSolverMatrixViewType,
            DirectSolverOptions,
        )

        general = kind == "GENERAL"
        held = matrix if general else sp.csr_matrix(sp.tril(matrix))
        held.sort_indices()
        self._device = torch.device("cuda", torch.cuda.current_device())
        # cuDSS takes indices of 32 bits.
        starts, columns = (torch.from_numpy(np.asarray(each, np.int32)) for each in (held.indptr, held.indices))
        values = torch.from_numpy(np.asarray(held.data, np.float64))
        self._matrix = torch.sparse_csr_tensor(starts, columns, values, size=held.shape).to(self._device)
        self._right = torch.zeros(held.shape[0], dtype=torch.float64, device=self._device)
        options = DirectSolverOptions(
            sparse_system_type=getattr(DirectSolverMatrixType, kind),
            sparse_system_view=getattr(DirectSolverMatrixViewType, "FULL" if general else "LOWER"),
            logger=_logger(),
        )
        self._solver: Any = DirectSolver(self._matrix, self._right, options=options)
        self.release = weakref.finalize(self, self._solver.free)
        self._solver.plan()
        information = self._solver.factorize()
        # Each entry is a number and an index; supernodes have fewer indices.
        self.bytes = 12 * int(information.lu_nnz)

    def solve(self, b: Tensor) -> Tensor:
        """A^-1 b for every row of (k, n)."""
        found = torch.empty(b.shape, dtype=torch.float64, device=self._device)
        for row, column in zip(b, found, strict=True):
            # The right-hand side keeps its place on the GPU, so that nothing has to be planned anew.
            self._right.copy_(row)
            column.copy_(self._solver.solve())
        return found.to(b.device)


def _logger() -> logging.Logger:
    """A logger that keeps to itself what would be written for every matrix."""
    found = logging.getLogger(__name__)
    found.propagate = False
    found.addHandler(logging.NullHandler())
    return found
