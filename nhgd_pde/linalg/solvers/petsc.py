"""PETSc: Krylov methods, multigrid and parallel factors, on one process or on all processes of an MPI run."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .base import Hints, Library, SingularMatrixError, WithoutEstimate
from .petsc_team import Leader, Refused, Told
from .superlu import significant, singular
from .trial_solve import recovers

# Without options: conjugate gradients with algebraic multigrid, whose relative error is measured in the energy norm,
# for definite matrices, and parallel LU factors for all others.
_NORM = "-ksp_norm_type natural"
_ITERATIVE = f"-ksp_type cg {_NORM} -pc_type gamg"
_DIRECT = "-ksp_type preonly -pc_type lu -pc_factor_mat_solver_type mumps"
# The condition number of preconditioner and matrix is taken for this many times the estimate by conjugate gradients,
# which comes from below.
_SAFETY = 2.0


def _there() -> bool:
    return find_spec("petsc4py") is not None


@dataclass(frozen=True)
class PETSc:
    """Krylov methods, multigrid or factors of PETSc, on all processes of an MPI run.

    Balay et al., PETSc/TAO Users Manual.

    Attributes:
        options: options of PETSc, such as "-ksp_type cg -pc_type gamg"; empty: by the kind of matrix. Conjugate
            gradients measure their error in the energy norm (`-ksp_norm_type natural`) unless they say otherwise.
        rtol: relative error of a solve that iterates (`-ksp_rtol`).
    """

    options: str = ""
    rtol: float = 1e-10
    name = "petsc"
    library = Library("petsc4py", "pip install petsc4py, which needs PETSc itself (docs/solvers.md)", _there)

    def prepare(self, matrix: sp.csr_matrix, hints: Hints) -> PETScSystem:
        """The matrix, distributed by rows, with its preconditioner or factors.

        Raises:
            SingularMatrixError: it is singular, or PETSc refuses the options.
        """
        kept = significant(sp.csr_matrix(matrix)) if hints.symmetric else sp.csr_matrix(matrix)
        usual = _ITERATIVE if hints.symmetric and hints.definite is not False else _DIRECT
        words = self.options.split()
        given = self.options if "cg" not in words or "-ksp_norm_type" in words else f"{_NORM} {self.options}"
        return PETScSystem(kept, hints, f"-ksp_rtol {self.rtol:g} {given or usual}")


class PETScSystem(WithoutEstimate):
    """A matrix that PETSc holds, on all processes. Vectors live on this one and are sent to the others and back.

    A matrix whose systems do not converge is factorised by MUMPS instead, from then on.
    """

    def __init__(self, matrix: sp.csr_matrix, hints: Hints, options: str) -> None:
        self._matrix, self._hints, self._options = matrix, hints, options
        self._leader = Leader()
        self._told: dict[bool, Told] = {}
        self.note = ""
        self._system(False)
        if self.exact:
            self._try()

    @property
    def size(self) -> int:
        return int(self._matrix.shape[0])

    @property
    def exact(self) -> bool:
        return self._told[False].direct

    @property
    def error(self) -> float:
        """r . P r <= rtol^2 b . P b bounds the error by rtol sqrt(cond(P A)), in the energy norm."""
        told = self._told[False]
        return 0.0 if told.direct else told.rtol * math.sqrt(_SAFETY * told.condition)

    @property
    def iterations(self) -> int:
        """Number of iterations so far."""
        return sum(each.iterations for each in self._told.values())

    @property
    def bytes(self) -> int:
        """Bytes of matrices, factors and hierarchies on all processes; other preconditioners are not counted."""
        return sum(each.bytes for each in self._told.values())

    def solve(self, b: Tensor) -> Tensor:
        return self._solve(b, False)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self._solve(b, not self._hints.symmetric)

    def overestimate(self, b: Tensor) -> Tensor | None:
        return None

    def _solve(self, b: Tensor, transposed: bool) -> Tensor:
        rows = b.detach().cpu().numpy()
        found = np.stack([self._solved(row, transposed) for row in rows]) if len(rows) else np.zeros(rows.shape)
        return torch.from_numpy(found).to(b.device)

    def _solved(self, row: np.ndarray, transposed: bool) -> np.ndarray:
        size = float(np.abs(row).max())
        if not np.isfinite(size):
            return np.full_like(row, np.nan)
        if size == 0.0:
            return np.zeros_like(row)
        found, reason = self._leader.solve(self._system(transposed), row / size)
        if reason > 0:
            return size * found
        if self.exact:
            return np.full_like(row, np.nan)
        self.note = f"PETSc did not converge (reason {reason}): the matrix was factorised by MUMPS"
        self._leader.forget(self._told)
        self._options, self._told = _DIRECT, {}
        self._try()
        return self._solved(row, transposed)

    def _system(self, transposed: bool) -> Told:
        """The matrix or its transpose, made when it is first needed."""
        if transposed not in self._told:
            matrix = sp.csr_matrix(self._matrix.T) if transposed else self._matrix
            definite = self._hints.symmetric and self._hints.definite is True
            modes = None if self._hints.near_nullspace is None else self._hints.near_nullspace
            try:
                self._told[transposed] = self._leader.prepare(
                    matrix, modes, self._options, self._hints.symmetric, definite
                )
            except Refused as error:
                raise SingularMatrixError(f"PETSc cannot prepare the matrix with {self._options!r}: {error}") from error
            # The other processes are told to forget it when this object is gone.
            weakref.finalize(self, self._leader.forget, {transposed: self._told[transposed]})
        return self._told[transposed]

    def _try(self) -> None:
        solve = partial(self._leader.solve, self._system(False))
        if not recovers(lambda b: solve(b)[0], self._matrix):
            raise singular(self._matrix)
