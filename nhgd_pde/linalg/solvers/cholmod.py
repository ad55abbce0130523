"""CHOLMOD: supernodal Cholesky factors of symmetric positive definite matrices, through CVXOPT."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .base import Hints, Library, Prepared, Solver, WithoutEstimate
from .superlu import SuperLU, significant
from .trial_solve import recovers

# Words of the structure `cholmod_factor`: the size n, the first column that is not positive definite (n if there is
# none), and the numbers of indices and of values of supernodal factors (SuiteSparse from 4.0 on, with 64-bit indices).
_SIZE, _MINOR, _INDICES, _VALUES = 0, 1, 14, 15


@dataclass(frozen=True)
class Cholmod:
    """Supernodal Cholesky factors of symmetric positive definite matrices, by CHOLMOD.

    Chen, Davis, Hager and Rajamanickam 2008, ACM TOMS 35; the order of unknowns is that of approximate minimum degree.
    Matrices that are not symmetric, or not definite, are factorised by SuperLU, with a note.
    """

    name = "cholmod"
    library = Library("CVXOPT", "pip install cvxopt (under the GNU GPL)", partial(find_spec, "cvxopt"))

    def chosen(self, unknowns: int, hints: Hints) -> tuple[Solver, str]:
        """The solver for a matrix, and the reason if it is another one."""
        if hints.symmetric and hints.definite is not False:
            return self, ""
        return SuperLU(), f"the matrix is not {'definite' if hints.symmetric else 'symmetric'}, as cholmod requires"

    def prepare(self, matrix: sp.csr_matrix, hints: Hints) -> Prepared:
        """The factors; raises a `SingularMatrixError` where there are none."""
        reason = self.chosen(matrix.shape[0], hints)[1]
        if not reason:
            try:
                found = CholmodFactors(significant(sp.csr_matrix(matrix)))
            except ArithmeticError:
                reason = "the matrix is not positive definite"
            else:
                if recovers(found.solve_columns, matrix):
                    return found
                reason = "the factors of cholmod are not accurate"
        factors = SuperLU().prepare(matrix, hints)
        factors.note = f"{reason}: it was factorised by superlu"
        return factors


class CholmodFactors(WithoutEstimate):
    """The factor L of a symmetric positive definite matrix. Vectors are copied to the host and back.

    Raises:
        ArithmeticError: the matrix is not positive definite.
    """

    exact, error, note = True, 0.0, ""

    def __init__(self, matrix: sp.csr_matrix) -> None:
        from cvxopt import cholmod, spmatrix
        from cvxopt import matrix as dense

        # CVXOPT takes arrays through the buffer protocol, and 64-bit indices alone.
        lower = sp.tril(matrix, format="coo")
        rows, columns = (dense(np.asarray(each, np.int64)) for each in (lower.row, lower.col))
        held = spmatrix(dense(lower.data), rows, columns, matrix.shape)
        self._size = int(matrix.shape[0])
        self._factor: Any = cholmod.symbolic(held)
        cholmod.numeric(held, self._factor)
        self._dense, self._solve = dense, cholmod.solve

    @property
    def size(self) -> int:
        return self._size

    @property
    def bytes(self) -> int:
        """Bytes of the values and indices of L."""
        api = ctypes.pythonapi
        api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
        api.PyCapsule_GetPointer.restype = ctypes.c_void_p
        api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        place = api.PyCapsule_GetPointer(self._factor, api.PyCapsule_GetName(self._factor))
        words = (ctypes.c_size_t * (_VALUES + 1)).from_address(place)
        if words[_SIZE] != self._size or words[_MINOR] != self._size:
            raise RuntimeError("the structure of this version of CHOLMOD is not known")
        return 8 * (int(words[_VALUES]) + int(words[_INDICES]))

    def solve_columns(self, b: np.ndarray) -> np.ndarray:
        """A^-1 b for (n,), or for every column of (n, k)."""
        held = self._dense(np.asfortranarray(b))
        self._solve(self._factor, held)
        return np.asarray(held).reshape(b.shape)

    def solve(self, b: Tensor) -> Tensor:
        if not len(b):
            return b.clone()
        found = self.solve_columns(b.detach().cpu().numpy().T)
        return torch.from_numpy(np.ascontiguousarray(found.T)).to(b.device)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self.solve(b)

    def overestimate(self, b: Tensor) -> Tensor | None:
        return None
